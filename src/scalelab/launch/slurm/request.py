"""What a job asks Slurm for."""

from __future__ import annotations

from dataclasses import dataclass

from scalelab.errors import ScalelabError
from scalelab.launch.slurm.options import limit, refuse_own

STOP = "USR1"
"""the signal that Slurm sends to the job when its time is nearly over"""


@dataclass(frozen=True)
class Request:
    """The options of a job, as sbatch has them; None and 0: Slurm's default. ``args`` are options of sbatch as they are.

    ``workers_per_node`` are Slurm's tasks. Raises ScalelabError for what no line of a script can hold, for ``args`` that would contradict
    the script, and for a time that is over before the checkpoint.
    """

    nodes: int = 1
    workers_per_node: int = 1
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    partition: str | None = None
    time: str | None = None
    account: str | None = None
    args: tuple[str, ...] = ()
    name: str = "scalelab"
    stop_seconds: int = 0
    """before the job's time is over it gets SIGUSR1, to save a checkpoint; 0: it gets none"""

    def __post_init__(self) -> None:
        for arg in self.args:
            if not arg.startswith("-"):
                raise ScalelabError(f"--slurm-arg {arg!r}: an option of sbatch begins with -, as in --slurm-arg=--qos=high")
        flags = {"--partition": self.partition, "--time": self.time, "--account": self.account, "--name": self.name}
        for flag, text in [*flags.items(), *(("--slurm-arg", arg) for arg in self.args)]:
            check(flag, text or "")
        refuse_own(self.args)
        most = limit(self.time or "")
        if most is not None and most <= self.stop_seconds:
            raise ScalelabError(
                f"--time {self.time}: is {most:g} s, and the checkpoint is --stop-seconds {self.stop_seconds} before its end: "
                "ask for more time, or say fewer --stop-seconds"
            )

    @property
    def workers(self) -> int:
        """Workers of the job, on all its nodes."""
        return self.nodes * self.workers_per_node

    def options(self) -> list[str]:
        """sbatch's options, those of ``args`` last: they win."""
        asked = {
            "--job-name": self.name, "--nodes": self.nodes, "--ntasks-per-node": self.workers_per_node,
            "--cpus-per-task": self.cpus_per_task, "--gpus-per-node": self.gpus_per_node or None, "--partition": self.partition,
            "--time": self.time, "--account": self.account, "--signal": f"B:{STOP}@{self.stop_seconds}" if self.stop_seconds else None,
        }  # fmt: skip
        return [*(f"{option}={value}" for option, value in asked.items() if value is not None), *self.args]


def check(what: str, text: str) -> None:
    """Raises ScalelabError where ``text`` can't stand in one line of a script."""
    if any(ord(letter) < 32 for letter in text):
        raise ScalelabError(f"{what} {text!r}: a line of a Slurm script can't hold a line break")
