"""Planning on a login node for nodes that are elsewhere: specs are checked here, in a process; nothing is trained or measured."""

from __future__ import annotations

import importlib.util
from typing import Any

from scalelab.batch import Derived
from scalelab.errors import ScalelabError
from scalelab.launch import asking
from scalelab.launch.ceiling import Occupied
from scalelab.launch.pool import Pool
from scalelab.record.schema import Host
from scalelab.spec import Spec
from scalelab.studies.slurm.arrays import shape


class Login(Pool):
    """A launcher that counts with the nodes' workers, CPUs and GPUs, not with this machine's."""

    answers_there = False

    def __init__(self, pool: Pool, per_node: int, cpus: int, gpus: int) -> None:
        """``pool`` answers; ``per_node`` workers on each node at most, each with ``cpus`` CPUs; ``gpus`` of a node."""
        super().__init__()
        self.pool, self.per_node, self.cpus, self.gpus = pool, per_node, cpus, gpus

    @property
    def here(self) -> None:  # type: ignore[override]
        """No rank runs on this machine."""
        return

    @property
    def cores(self) -> int:
        """CPUs of a node that its workers may use."""
        return self.cpus * self.per_node

    def workers_of(self, spec: Spec) -> list[int]:
        """As many on each node."""
        made = shape(spec.workers, self.per_node)
        return [made.per_node] * made.nodes

    def hosts(self, spec: Spec) -> list[Host]:
        """Not known before Slurm has chosen them."""
        return []

    def occupied(self, spec: Spec, derived: Derived) -> list[Occupied]:
        """No host of these can be measured from here."""
        return []

    def ask(self, target: str, spec: Spec, doing: str = asking.DOING) -> Any:
        """What ``target`` answers here; GPUs are the nodes'. Raises ScalelabError where torch is missing."""
        if importlib.util.find_spec("torch") is None:
            raise ScalelabError(
                "a study is planned where torch is: give this command inside a job, as in `srun --pty scalelab study …`"
            )
        found = self.pool.ask(target, spec, doing)
        return {**found, "devices": self.gpus} if isinstance(found, dict) and "devices" in found else found
