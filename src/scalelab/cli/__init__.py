"""The command line: one module a command. Nothing heavy is imported before a command is known."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from types import FrameType

from scalelab import __version__
from scalelab.errors import ScalelabError, nearest
from scalelab.launch.signals import ENDING

COMMANDS = {
    "demo": "does it work here, what does it show? (two minutes, no download)",
    "train": "train this model with this strategy, on these workers",
    "verify": "does this strategy compute the same thing as one process would, for this model?",
    "explain": "what does this strategy hold and send, by which formula?",
    "doctor": "what is fit for training here, on these hosts, on Slurm, and what is not?",
    "study": "a question of the field, answered with trainings, figures and a report",
    "sweep": "any program over many values of its arguments: here, over hosts, as a Slurm array",
    "check-table": "can the numbers of a published table be right?",
    "report": "show recorded runs as one self-contained page",
    "jobs": "how do runs, studies and sweeps stand that are jobs of Slurm?",
    "cancel": "end them, in the queue or on its nodes",
    "runs": "list, show, compare, export recorded runs",
}

USAGE = """usage: scalelab COMMAND [flags]

Measures and explains how the training of image classifiers scales.

commands:
{commands}

`scalelab COMMAND --help` shows a command's flags, with an example.
Everywhere: --json prints one JSON document on stdout; --debug shows tracebacks. Exit status 2: mend the command; 1: the run failed.

example:
  scalelab train --model resnet18 --data digits --strategy ddp --workers 2 --epochs 3
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if sys.stdout is None:  # closed by who started us: `scalelab … >&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the life of the process
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE.format(commands="\n".join(f"  {name:11} {text}" for name, text in COMMANDS.items())), end="")
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"scalelab {__version__}")
        return 0
    ours = words.index("--") if "--" in words else len(words)  # what comes after it is another program's
    debug = "--debug" in words[:ours]
    before = {number: signal.signal(number, _interrupt) for number in ENDING}
    try:
        if words[0] not in COMMANDS:
            raise ScalelabError(f"unknown command '{words[0]}'{nearest(words[0], COMMANDS)}; valid: {', '.join(COMMANDS)}")
        status: int = importlib.import_module(f"scalelab.cli.{words[0].replace('-', '_')}").run(
            [w for place, w in enumerate(words[1:], 1) if w != "--debug" or place > ours], debug
        )
        sys.stdout.flush()
        return status
    except ScalelabError as error:
        from scalelab.record.text import harmless

        if debug:
            print(harmless(traceback.format_exc()), file=sys.stderr, end="")
        _tell_of_hosts(error)
        said = harmless(str(error)).replace("\n", r"\n")  # a name that the user gave may hold one
        print(f"scalelab: {said}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("scalelab: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `scalelab runs list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # such as a standard output on a full disk, or a run's folder removed while it ran
        if debug:
            traceback.print_exc()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
        print(f"scalelab: {error}", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_of_hosts(error: ScalelabError) -> None:
    """The table of an error that is about several hosts."""
    from scalelab.launch.hosts.checks import Unfit

    if isinstance(error, Unfit):
        from scalelab.cli.places import host_faults
        from scalelab.cli.terminal import console

        host_faults.show(console(to_stderr=True), error.faults)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """A polite kill, or a terminal that closes, ends a command as Ctrl-C does: records closed, no orphans.

    Once: a second signal, which could come at the same moment, must not break off the clearing up after the first.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
