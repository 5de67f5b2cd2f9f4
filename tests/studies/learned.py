"""Results of a study without trainings: points, and what their seeds reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from scalelab import spec as specs
from scalelab.record.schema import Epoch, Failure
from scalelab.studies.study import Asked, Point, Result, Run, Study
from tests.report import samples


def asked(study: Study, varied: dict[str, list[Any]], options: dict[str, Any] | None = None, **base: Any) -> Asked:
    """The question as the command line would ask it."""
    defaults = {option.name: option.default for option in study.options}
    return Asked(
        specs.from_mapping({**study.base, **base}),
        {**study.varies, **varied},
        {**defaults, **(options or {})},
        quick=False,
        cores=2,
    )


def result(point: Point, curves: Sequence[Sequence[float] | None], seconds: float = 10.0) -> Result:
    """A run for each seed with these accuracies after its epochs, ``seconds`` each; None: its loss became infinite."""
    return Result(point, [_run(point, seed, curve, seconds) for seed, curve in enumerate(curves)])


def _run(point: Point, seed: int, curve: Sequence[float] | None, seconds: float) -> Run:
    record, _ = samples.record("single", seed)
    reached = list(curve or [])
    epochs = [
        Epoch(
            epoch=n, steps=10, train_loss=1.0, test_loss=1.0, accuracy=accuracy, precision=accuracy, recall=accuracy, learning_rate=0.1,
            seconds=seconds, images_per_second=100.0,
        ) for n, accuracy in enumerate(reached, 1)
    ]  # fmt: skip
    failure = Failure(error="the loss became nan at step 3: try a lower --lr", expected=True) if curve is None else None
    record = msgspec.structs.replace(
        record, epochs=epochs, accuracy=reached[-1] if reached else None, best_accuracy=max(reached, default=None),
        seconds=seconds * len(reached), status="failed" if curve is None else "completed", failure=failure,
        spec=msgspec.to_builtins(point.spec), steps=10 * len(reached),
    )  # fmt: skip
    return Run(seed, Path(f"{point.label}-{seed}"), record)
