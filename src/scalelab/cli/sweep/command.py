"""``scalelab sweep``: any program over many values of its arguments, and what became of it."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from scalelab.cli.sweep import running
from scalelab.cli.sweep.actions import ACTIONS
from scalelab.cli.terminal import console
from scalelab.errors import ScalelabError, nearest
from scalelab.record.folder import held
from scalelab.record.sweep import PlannedTask, SweepPlan, SweepRecord
from scalelab.sweep import keeping, slurm
from scalelab.sweep.metric import OUTPUT


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    if words and words[0] in ACTIONS:
        return ACTIONS[words[0]](words[1:])
    if words and not words[0].startswith("-"):
        raise ScalelabError(f"'{words[0]}'{nearest(words[0], ACTIONS)}: expected flags, or one of {', '.join(ACTIONS)}")
    from scalelab.cli.sweep import flags  # a tenth of a second that `sweep status` need not wait

    own, argv = parted(words)
    parsed = flags.parser().parse(own)
    sweep, tasks, notes = flags.asked(parsed, argv, ["scalelab", "sweep", *own])
    env = flags.environment(parsed.env, sweep.place)
    err = console(to_stderr=True)
    for note in notes:
        err.print(f"note: {note}", markup=False, style="yellow")
    folder = Path(parsed.out) if parsed.out else keeping.default_folder(sweep.name)
    if parsed.dry_run:
        return show_plan(console(), folder, sweep, tasks, parsed.json)
    new = not folder.exists()
    keeping.make(folder)
    with held(folder, running.DOING):
        new = new and not (folder / keeping.SWEEP).exists()  # nor has another process been faster
        try:
            keeping.create(folder, sweep, tasks)
            if sweep.place == "slurm":
                return running.on_slurm(folder, sweep, [task.task for task in tasks], parsed.wait, parsed.json, err)
            return running.here(folder, sweep, tasks, {}, env, parsed.json, err)
        except ScalelabError as error:
            if new and error.exit_status == 2:  # nothing was started: nothing is left
                shutil.rmtree(folder, ignore_errors=True)
                if not parsed.out:
                    with contextlib.suppress(OSError):  # other sweeps are there
                        folder.parent.rmdir()
            raise


def parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own words, and the program's, which come after the first ``--``."""
    place = list(words).index("--") if "--" in words else len(words)
    own = list(words[:place])
    for at in range(len(own) - 1, 0, -1):
        if own[at - 1] == "--metric-json" and own[at].startswith(f"{OUTPUT}:"):  # which argparse would take for a flag
            own[at - 1 : at + 1] = [f"{own[at - 1]}={own[at]}"]
    return own, list(words[place + 1 :])


def show_plan(out: Console, folder: Path, sweep: SweepRecord, tasks: Sequence[PlannedTask], as_json: bool) -> int:
    """What ``--dry-run`` prints: the commands, as a shell takes them; with --slurm the script before them."""
    script = slurm.shown(folder, sweep) if sweep.place == "slurm" else None
    if as_json:
        print(msgspec.json.encode(SweepPlan(sweep=sweep, tasks=list(tasks), script=script)).decode())
        return 0
    for text in [*([f"{script}\n"] if script else []), *(shlex.join(task.argv) for task in tasks)]:
        out.print(text, markup=False, highlight=False, soft_wrap=True)
    return 0
