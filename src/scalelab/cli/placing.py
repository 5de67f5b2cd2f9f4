"""Where a command's trainings run: ``--on local`` (this machine), and what else is registered here."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable

from rich.console import Console

from scalelab.errors import unknown
from scalelab.launch.launcher import Command, Launcher
from scalelab.launch.pool import Pool

PLACES: dict[str, Callable[[argparse.Namespace], Launcher]] = {"local": lambda parsed: Pool()}
"""what ``--on`` may say, and the launcher it means"""


def add_placing(parser: argparse.ArgumentParser, commands: bool = True) -> None:
    """The flags that say where; ``commands``: with the --dry-run that prints them."""
    group = parser.add_argument_group("where it runs")
    group.add_argument("--on", metavar="|".join(PLACES), default="local", help="what starts the workers (default local)")
    if commands:
        group.add_argument("--dry-run", action="store_true", help="print exactly what would run on each host, and start nothing")


def launcher_of(parsed: argparse.Namespace) -> Launcher:
    """The launcher that the flags mean. Raises ScalelabError."""
    if parsed.on not in PLACES:
        raise unknown("place", parsed.on, PLACES)
    return PLACES[parsed.on](parsed)


def show_commands(out: Console, commands: list[Command]) -> None:
    """What ``--dry-run`` prints: each host's command lines, as a shell takes them."""
    here = os.uname().nodename
    for command in commands:
        where = "" if command.host == here else f"# on {command.host}\n"
        env = " ".join(f"{name}={shlex.quote(value)}" for name, value in command.env.items())
        out.print(f"{where}{env} {shlex.join(command.argv)}".strip(), markup=False, highlight=False, soft_wrap=True)
