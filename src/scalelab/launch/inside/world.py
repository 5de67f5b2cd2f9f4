"""Which of how many processes this one is, by what started them: torchrun, an MPI's mpiexec, Slurm's srun."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from scalelab.errors import ScalelabError
from scalelab.launch.environments import CERTAIN, ENVIRONMENTS, told, translated

MPIS = ("openmpi", "mpich")
LOCAL = ("LOCAL_RANK", "LOCAL_WORLD_SIZE")
JOB = {
    "torchrun": ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT"),
    "openmpi": ("PMIX_NAMESPACE",),
    "mpich": (),
    "slurm": ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
}
"""variables that are the same on all ranks of one start, and differ between two; Hydra sets none"""


@dataclass(frozen=True)
class World:
    """One process of a world of more than one. ``cluster`` is a name of ``ENVIRONMENTS``."""

    cluster: str
    rank: int
    size: int
    local_rank: int | None
    local_size: int | None
    """processes of the world on this host; None where nobody says"""
    job: str
    """what tells this start from others; empty where nothing does"""

    @property
    def first(self) -> bool:
        """Whether this process launches, too."""
        return self.rank == 0

    @property
    def one_host(self) -> bool:
        """Whether all processes are known to be on this host."""
        return self.local_size == self.size

    @property
    def token(self) -> str:
        """What processes of one start greet each other with."""
        return hashlib.sha256(f"{self.cluster} {self.size} {self.job}".encode()).hexdigest()[:16]


def found(environ: Mapping[str, str]) -> World | None:
    """The world that this process is in; None where nothing started it, or it is the only one. Raises ScalelabError."""
    for cluster, certain in CERTAIN.items():
        said = told(cluster, environ)
        if all(said.get(meaning) for meaning in certain):
            place = translated(cluster, environ)
            rank, size = (_number(cluster, place, name) for name in ("RANK", "WORLD_SIZE"))
            local, local_size = (_number(cluster, place, name) if name in place else None for name in LOCAL)
            if not 0 <= rank < size:
                raise ScalelabError(
                    f"{ENVIRONMENTS[cluster]['rank']}={rank}: there are {size} ranks; unset it where it is a leftover"
                )
            job = " ".join(environ.get(name, "") for name in JOB[cluster]).strip()
            return World(cluster, rank, size, local, local_size, job) if size > 1 else None
    if "PMIX_RANK" in environ:
        raise ScalelabError(
            "PMIX_RANK is set, but nothing tells how many ranks there are: start with mpirun or srun, not with prterun"
        )
    return None


def step(environ: Mapping[str, str]) -> str | None:
    """The step of Slurm that this process is in, as ``squeue --steps`` names it; None for a part of a heterogeneous job."""
    names = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "SLURM_STEP_ID")
    array, task, job, number = (environ.get(name) for name in names)
    if job is None or number is None or "SLURM_HET_SIZE" in environ:
        return None
    return f"{array}_{task}.{number}" if array and task else f"{job}.{number}"


def disagreement(environ: Mapping[str, str]) -> str | None:
    """What to know where two MPIs have both left their variables, and they say different things; None where they don't."""
    seen = {name: said for name in MPIS if all((said := told(name, environ)).get(meaning) for meaning in CERTAIN[name])}
    if len({(said["rank"], said["workers"]) for said in seen.values()}) < 2:
        return None
    texts = [f"{name}'s variables say rank {said['rank']} of {said['workers']}" for name, said in seen.items()]
    return f"{', '.join(texts)}: the former are believed; an mpiexec inside another one, or of another MPI, starts worlds of their own"


def _number(cluster: str, place: Mapping[str, str], name: str) -> int:
    try:
        return int(place[name])
    except ValueError:
        raise ScalelabError(f"{cluster}'s {name} is {place[name]!r}, no whole number; unset it where it is a leftover") from None
