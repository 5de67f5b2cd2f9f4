"""Batch scripts that people can read, change, and submit by hand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.launch.slurm.request import Request, check


@dataclass(frozen=True)
class Script:
    """A batch script: what it is, its options for sbatch, its commands.

    ``output``: the file that gets what the job prints (its folder must exist); ``%j``, ``%A``, ``%a`` and the like in ``pattern``, which
    is appended to it, are Slurm's. ``folder`` is where the commands run; each of ``commands`` is a command line as a list of words, the
    last one takes the place of the shell, so that signals reach it. ``more`` are further options for sbatch.
    """

    request: Request
    folder: Path
    output: Path
    commands: Sequence[Sequence[str]]
    about: Sequence[str] = ()
    pattern: str = ""
    more: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The script. Raises ScalelabError for a path that Slurm or a line of a script can't hold."""
        check("folder", str(self.folder))
        options = [*self.request.options(), f"--output={filename(self.output)}{self.pattern}", *self.more]
        lines = [
            "#!/bin/bash",
            *(f"# {line}" for line in self.about),
            *(f"#SBATCH {option_quoted(option)}" for option in options),
        ]
        lines += ["", f"cd -- {shlex.quote(str(self.folder))}"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()]
        *first, last = (shlex.join(command) for command in self.commands)
        return "\n".join([*lines, *first, f"exec {last}"]) + "\n"


def option_quoted(option: str) -> str:
    """An option as a line of ``#SBATCH`` takes it; quoted only where it must be. sbatch knows a shell's quotes, and ``#`` ends a line."""
    name, equals, value = option.partition("=")
    if not equals or not set(value) & set(" \t'\"\\#") or set(name) & set(" \t'\"\\#"):
        return option if not set(option) & set(" \t'\"\\#") else _quoted(option)
    return f"{name}={_quoted(value)}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def filename(path: Path) -> str:
    """A path as Slurm's ``--output`` takes it, where ``%`` begins a pattern. Raises ScalelabError for one that it can't hold."""
    text = str(path)
    check("folder", text)
    if "\\" in text:  # Slurm takes it for "no patterns here" and loses it
        raise ScalelabError(f"{text}: Slurm can't write to a path with a backslash; choose another --out")
    return text.replace("%", "%%")
