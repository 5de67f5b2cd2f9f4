"""What each cluster's launcher tells a process of its place, as a table: meaning → the variable's name.

The meanings are torchrun's, whose variables every rank of scalelab is placed by (``translated``). A launcher that is not here is one
more row. Model: submitit's JobEnvironment (facebookincubator/submitit, core/job_environment.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

TORCHRUN = {
    "rank": "RANK", "workers": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_workers": "LOCAL_WORLD_SIZE", "host": "GROUP_RANK",
    "address": "MASTER_ADDR", "port": "MASTER_PORT", "job": "TORCHELASTIC_RUN_ID",
}  # fmt: skip
"""of PyTorch's torchrun: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables"""
SLURM = {
    "rank": "SLURM_PROCID", "workers": "SLURM_STEP_NUM_TASKS", "local_rank": "SLURM_LOCALID", "host": "SLURM_NODEID",
    "per_host": "SLURM_STEP_TASKS_PER_NODE", "hosts": "SLURM_STEP_NODELIST", "job": "SLURM_JOB_ID", "step": "SLURM_STEP_ID",
}  # fmt: skip
"""of a process that srun started: https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES. Not SLURM_NTASKS: in the
interactive step of a salloc (LaunchParameters=use_interactive_step), which is one task, that is what the job was asked for"""
OPENMPI = {
    "rank": "OMPI_COMM_WORLD_RANK", "workers": "OMPI_COMM_WORLD_SIZE", "local_rank": "OMPI_COMM_WORLD_LOCAL_RANK",
    "local_workers": "OMPI_COMM_WORLD_LOCAL_SIZE", "job": "PMIX_NAMESPACE",
}  # fmt: skip
"""of Open MPI's mpirun: https://docs.open-mpi.org/en/main/tuning-apps/environment-var.html"""
MPICH = {
    "rank": "PMI_RANK", "workers": "PMI_SIZE", "local_rank": "MPI_LOCALRANKID", "local_workers": "MPI_LOCALNRANKS",
}  # fmt: skip
"""of Hydra, the mpiexec of MPICH, Intel MPI and MVAPICH. Slurm's own PMI sets the first two as well, and no local rank."""
ENVIRONMENTS: dict[str, dict[str, str]] = {"torchrun": TORCHRUN, "openmpi": OPENMPI, "mpich": MPICH, "slurm": SLURM}
"""the clusters by name, in the order in which they are believed where several are there: torchrun may run inside a step of Slurm, and
mpirun starts its own daemons by one, so that Slurm's variables are then those of a daemon"""
CERTAIN = {
    "torchrun": ("rank", "workers", "address", "port"), "openmpi": ("rank", "workers"), "mpich": ("rank", "workers", "local_rank"),
    "slurm": ("rank", "workers", "step"),
}  # fmt: skip
"""what a cluster must tell before it is believed: a batch script of Slurm's, or a shell of salloc's, has a rank too, and is no step"""


def told(cluster: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What a cluster tells in ``environ``: meaning → value, of those variables that are set."""
    return {meaning: environ[name] for meaning, name in ENVIRONMENTS[cluster].items() if name in environ}


def translated(cluster: str, environ: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables of this process, from the cluster's; those that it does not tell are left out."""
    found = told(cluster, environ)
    if "per_host" in found and "host" in found:
        found["local_workers"] = str(tasks_per_host(found["per_host"])[int(found["host"])])
    return {name: found[meaning] for meaning, name in TORCHRUN.items() if meaning in found}


def tasks_per_host(text: str) -> list[int]:
    """Slurm's ``2(x3),1`` as [2, 2, 2, 1]."""
    runs = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, times in runs for _ in range(int(times or 1))]
