"""A text from the first rank to the others over PMI-1, the lines that Hydra (MPICH, Intel MPI, MVAPICH) exchanges with its processes.

The protocol: https://github.com/pmodels/mpich, src/pmi. No MPI library takes part, so it need not be the mpiexec's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scalelab.errors import ScalelabError
from scalelab.launch.inside import broadcast

if TYPE_CHECKING:
    from scalelab.launch.inside.world import World
    from scalelab.launch.pool import Pool

DESCRIPTOR = "PMI_FD"
"""environment variable: an open socket to Hydra's proxy on this host"""
KEY = "scalelab"


def exchange(world: World, environ: Mapping[str, str], said: str | None, pool: Pool) -> str:
    """``said`` of the first rank, on every rank; by a broadcast of mpi4py where mpiexec gives no such socket. Raises ScalelabError."""
    if not environ.get(DESCRIPTOR, "").isdigit():
        return broadcast.exchange(world, environ, said, pool)
    try:
        return talk(int(environ[DESCRIPTOR]), said)
    except (OSError, KeyError, ValueError) as error:
        raise ScalelabError(f"mpiexec's PMI could not be asked ({error}); give the first rank's host in MASTER_ADDR") from None


def talk(descriptor: int, said: str | None) -> str:
    """The exchange, from init to finalize: whoever leaves without is taken for failed. Raises OSError, KeyError, ValueError."""
    with os.fdopen(os.dup(descriptor), "r+b", buffering=0) as line:

        def ask(command: str, **values: str) -> dict[str, str]:
            line.write((" ".join([f"cmd={command}", *(f"{name}={value}" for name, value in values.items())]) + "\n").encode())
            answer = dict(word.partition("=")[::2] for word in line.readline().decode().split())
            if answer.get("rc", "0") != "0":
                raise ValueError(f"{command}: {answer.get('msg', answer['rc'])}")
            return answer

        ask("init", pmi_version="1", pmi_subversion="1")
        space = ask("get_my_kvsname")["kvsname"]
        if said is not None:
            ask("put", kvsname=space, key=KEY, value=said)
        ask("barrier_in")
        heard = ask("get", kvsname=space, key=KEY)["value"]
        ask("finalize")
    return heard
