"""Which trainings make which job: an array for each number of workers, because all tasks of an array are jobs of one size.

Where there are more trainings than an array may have tasks, there are several arrays of a size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalelab.studies.running.planning import Planned


@dataclass(frozen=True)
class Shape:
    """The size of a job: ``nodes`` with ``per_node`` workers each."""

    nodes: int
    per_node: int

    @property
    def workers(self) -> int:
        """Workers of the job, on all its nodes."""
        return self.nodes * self.per_node


@dataclass(frozen=True)
class Array:
    """Trainings of one size, each a task: (place of the point, repeat), in the order of the plan.

    ``part``: counts the arrays of this size, from 1.
    """

    shape: Shape
    trainings: tuple[tuple[int, int], ...]
    part: int = 1

    @property
    def name(self) -> str:
        """``4-workers``, also its files'; ``4-workers-2`` the second part."""
        return f"{self.shape.workers}-worker{'s' * (self.shape.workers > 1)}{f'-{self.part}' * (self.part > 1)}"

    @property
    def indices(self) -> str:
        """sbatch's ``--array``."""
        return f"0-{len(self.trainings) - 1}"


def shape(workers: int, per_node: int) -> Shape:
    """A job of ``workers`` on as few nodes as have equally many each, ``per_node`` at most: 6 with 4 a node at most are 2 x 3."""
    each = max(count for count in range(1, min(workers, per_node) + 1) if workers % count == 0)
    return Shape(workers // each, each)


def arrays(planned: Planned, per_node: int, most: int) -> list[Array]:
    """What is missing of a plan, as arrays of ``most`` trainings at most, the smallest jobs first."""
    return grouped([(one, _workers(planned, one)) for one in planned.missing], per_node, most)


def grouped(trainings: Sequence[tuple[tuple[int, int], int]], per_node: int, most: int) -> list[Array]:
    """((place, repeat), workers) of each training, as arrays."""
    found = []
    for size in sorted({workers for _, workers in trainings}):
        mine = [one for one, workers in trainings if workers == size]
        parts = [tuple(mine[first : first + most]) for first in range(0, len(mine), most)]
        found += [Array(shape(size, per_node), part, number) for number, part in enumerate(parts, 1)]
    return found


def _workers(planned: Planned, training: tuple[int, int]) -> int:
    row = planned.cases[training[0]].row
    assert row is not None, "only what can run is in the order"
    return row.spec.workers
