"""What ``verify`` found."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from scalelab.record.figure import require_finite


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One (strategy, engine) of ``verify``: the largest relative differences from ``single``.

    None: not compared, or (in JSON) not finite.
    """

    strategy: str
    engine: str = "torch"
    workers: int
    options: dict[str, Any] = {}
    """what it was compared with besides: a schedule, a degree, options that only some strategies have"""
    shape: str | None = None
    """what is odd about this cell's training (``--grid``)"""
    precision: str = "fp64"
    tolerance: float = 1e-9
    status: Literal["passed", "failed", "differs_by_design", "not_applicable"]
    max_loss_difference: float | None = None
    max_parameter_difference: float | None = None
    max_buffer_difference: float | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        require_finite(self, "tolerance")


class VerifyRecord(msgspec.Struct, kw_only=True):
    """What ``verify --json`` prints."""

    kind: Literal["verify"] = "verify"
    model: str
    data: str
    precision: str
    tolerance: float
    steps: int
    batch: int
    cells: list[Cell] = []
    notes: list[str] = []

    def __post_init__(self) -> None:
        require_finite(self, "tolerance")
