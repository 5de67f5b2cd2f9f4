"""Where a command's trainings run: ``--on local`` (this machine), and what else is registered here."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable

import msgspec
from rich.console import Console

from scalelab.cli.places import inside
from scalelab.cli.places.hosts import add_flags, filled, over_hosts, refuse_elsewhere
from scalelab.errors import unknown
from scalelab.launch.hosts.forwarding import shown
from scalelab.launch.launcher import Command, Launcher, Prepared
from scalelab.launch.pool import Pool
from scalelab.spec import Spec

PLACES: dict[str, Callable[[argparse.Namespace], Launcher]] = {
    "local": lambda parsed: Pool(), "inside": inside.first, "hosts": over_hosts,
}  # fmt: skip
"""what ``--on`` may say, and the launcher it means"""


def add_placing(parser: argparse.ArgumentParser, commands: bool = True) -> None:
    """The flags that say where; ``commands``: with the --dry-run that prints them."""
    group = parser.add_argument_group("where it runs")
    group.add_argument(
        "--on",
        type=filled("--on"),
        metavar="|".join(PLACES),
        help="what starts the workers (default local; inside: mpirun, srun or torchrun has done so)",
    )
    add_flags(group)
    if commands:
        group.add_argument("--dry-run", action="store_true", help="print exactly what would run on each host, and start nothing")


def launcher_of(parsed: argparse.Namespace, one: bool = False) -> Launcher:
    """The launcher that the flags mean; ``one``: for one training, which may be inside what mpirun has started. Raises ScalelabError."""
    if not one or parsed.hosts:
        inside.refuse(parsed)
    on = parsed.on or ("hosts" if parsed.hosts else "local" if inside.world_of(parsed) is None else "inside")
    if on not in PLACES:
        raise unknown("place", on, PLACES)
    refuse_elsewhere(parsed, on)
    if on == "local":
        inside.tell_apart()
    return PLACES[on](parsed)


def check_all(launcher: Launcher, base: Spec) -> None:
    """Check all hosts at once for what all trainings of a command have in common. Raises ScalelabError."""
    if launcher.slots is not None:
        launcher.check(msgspec.structs.replace(base, workers=launcher.slots))


def show_commands(out: Console, commands: list[Command]) -> None:
    """What ``--dry-run`` prints: each host's command lines, as a shell takes them; values of secrets are hidden."""
    here, several = os.uname().nodename, len({command.host for command in commands}) > 1
    for command in commands:  # an ssh of this host, which has no variables, is typed here
        where = f"# on {command.host}\n" if command.host != here or (several and command.env) else ""
        env = " ".join(f"{name}={shlex.quote(value)}" for name, value in shown(command.env).items())
        out.print(f"{where}{env} {shlex.join(command.argv)}".strip(), markup=False, highlight=False, soft_wrap=True)


def commands_as_json(prepared: Prepared, commands: list[Command]) -> str:
    """What ``--dry-run --json`` prints: the numbers that were derived, and the commands; values of secrets are hidden."""
    document = {
        "spec": prepared.spec, "derived": prepared.derived, "model": prepared.model, "data": prepared.data, "plan": prepared.plan,
        "commands": [{"host": one.host, "argv": one.argv, "env": shown(one.env)} for one in commands],
    }  # fmt: skip
    return msgspec.json.encode(document).decode()
