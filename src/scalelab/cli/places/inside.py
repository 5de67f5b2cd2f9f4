"""A command that mpirun, srun or torchrun has started many times: one of its processes is the launcher, the others run a rank each."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence

from scalelab.cli.flags import Parser
from scalelab.errors import ScalelabError
from scalelab.launch.inside import world as worlds
from scalelab.launch.inside.world import World
from scalelab.launch.launcher import Launcher

ALONE = "{cluster} has started {size} of this command, which starts its workers itself: start it once, with --hosts or --slurm"

APART = "scalelab: {cluster} has started {size} of this command; with --on local each runs all of it by itself, with a record of its own"

LEFT = 0
"""exit status of a process that leaves it to the first one to refuse: mpirun ends that one as soon as another one fails"""
LATER = 3.0
"""seconds after which a process that can't read the command fails, so that the first one has told why"""


def world_of(parsed: argparse.Namespace) -> World | None:
    """The world that this process is in, unless ``--on`` says where else its ranks run. Raises ScalelabError."""
    return worlds.found(os.environ) if getattr(parsed, "on", None) in (None, "inside") else None


def run_other(parser: Parser, words: Sequence[str]) -> int | None:
    """Run the rank of a process that is not the first of its world; its exit status. None where it is, or there is no world.

    Such a process says nothing that the first one says.
    """
    world = worlds.found(os.environ)
    if world is None or world.first:
        return None
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the life of the process
    try:
        parsed = parser.parse(words)
        world = world_of(parsed)
    except ScalelabError as error:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(LATER)
        return error.exit_status
    if getattr(parsed, "hosts", None):  # which the first process refuses
        return LEFT
    if world is None:
        sys.stdout = sys.__stdout__
        return None
    from scalelab.launch.inside.other import follow

    try:
        return follow(world, os.environ, master_of(parsed))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def first(parsed: argparse.Namespace) -> Launcher:
    """The launcher of the world that this process is the first of. Raises ScalelabError where there is none."""
    from scalelab.launch.inside.first import Inside

    world = world_of(parsed)
    if world is None:
        raise ScalelabError("--on inside: neither mpirun nor srun nor torchrun has started several of this command; leave it out")
    os.environ["TERM"] = "dumb"  # mpirun gives its processes a terminal, whatever its own output is
    warning = worlds.disagreement(os.environ)
    if warning:
        print(f"scalelab: {warning}", file=sys.stderr)
    return Inside(world, os.environ, master_of(parsed))


def refuse(parsed: argparse.Namespace) -> None:
    """Raises ScalelabError for a command that does not run inside a world; all but the first process leave that to it."""
    world = worlds.found(os.environ) if getattr(parsed, "hosts", None) else world_of(parsed)
    if world is not None and not world.first:
        raise SystemExit(LEFT)
    if world is not None:
        raise ScalelabError(ALONE.format(cluster=world.cluster, size=world.size))


def tell_apart() -> None:
    """On the first process of a world, say what --on local makes of it; the others say nothing."""
    with contextlib.suppress(ScalelabError):  # a leftover that is no world: --on local is the way around it
        world = worlds.found(os.environ)
        if world is not None and world.first:
            print(APART.format(cluster=world.cluster, size=world.size), file=sys.stderr)


def master_of(parsed: argparse.Namespace) -> str | None:
    """Where the user says that the first rank is."""
    address: str | None = getattr(parsed, "master_addr", None)
    return address
