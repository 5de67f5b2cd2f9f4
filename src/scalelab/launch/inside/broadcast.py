"""A text from the first rank to the others by a broadcast of mpi4py, in a process of its own: the launcher's must not become an MPI's.

``python -m scalelab.launch.inside.broadcast SIZE``: standard input is the first rank's text, standard output gets it on every rank.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scalelab.errors import ScalelabError

if TYPE_CHECKING:
    from scalelab.launch.inside.world import World
    from scalelab.launch.pool import Pool

ROOM = 4096
"""bytes of the text at most"""
OTHER_MPI = 3
"""exit status: MPI itself sees another number of ranks"""
HELP = "give the first rank's host, as in `mpirun -x MASTER_ADDR=NAME …`"


def exchange(world: World, environ: Mapping[str, str], said: str | None, pool: Pool) -> str:
    """``said`` of the first rank, on every rank. Raises ScalelabError: no mpi4py, or that of another MPI."""
    if importlib.util.find_spec("mpi4py") is None:
        raise ScalelabError(f"several hosts, and nothing tells the ranks where the first one is: install mpi4py, or {HELP}")
    line = [sys.executable, "-m", __name__, str(world.size)]
    done = subprocess.run(line, input=said or "", capture_output=True, text=True)
    if done.returncode == OTHER_MPI:
        raise ScalelabError(f"mpi4py is of another MPI than this mpiexec: it sees {done.stdout} of {world.size} ranks; {HELP}")
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ScalelabError(f"mpi4py could not tell the ranks where the first one is ({why}); {HELP}")
    return done.stdout


def main(size: int) -> int:
    """Broadcast standard input; the exit status."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if world.Get_size() != size:
        print(world.Get_size(), end="")
        return OTHER_MPI
    text = bytearray(ROOM)
    if world.Get_rank() == 0:
        said = sys.stdin.buffer.read(ROOM)
        text[: len(said)] = said
    world.Bcast([text, MPI.BYTE])  # not bcast, which would unpickle what came
    print(text.rstrip(b"\0").decode(), end="", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
