"""What a record says of a run that was ended."""

from __future__ import annotations

from pathlib import Path

import msgspec

from scalelab.launch.ending import close
from scalelab.launch.training import NOT_YET
from scalelab.measure.statistics import absent
from scalelab.record import folder as records
from scalelab.record.schema import Failure, TrainRecord
from tests.report.samples import record


def ended(folder: Path, count: int, start_seconds: float | None) -> TrainRecord:
    """A run that failed after ``count`` steps, before it summed any of them up."""
    made, steps = record()
    made.images_per_second, made.step_seconds = absent("images/s", "fewer steps"), absent("s", NOT_YET)
    made.attempts = [msgspec.structs.replace(made.attempts[-1], first_step=0, start_seconds=start_seconds)]
    records.save(folder, made)
    (folder / "steps.jsonl").write_bytes(b"".join(msgspec.json.encode(step) + b"\n" for step in steps[:count]))
    close(folder, "failed", Failure(error="killed", host="h1", rank=0))
    return records.load(folder)


def test_a_run_that_was_ended_has_the_figures_of_its_steps(tmp_path: Path) -> None:
    found, (_, steps) = ended(tmp_path, 107, 2.0), record()
    assert (found.status, found.steps) == ("failed", 107)
    assert (found.images_per_second.n, found.images_per_second.reason) == (10, None)
    fastest, slowest = min(step.seconds for step in steps), max(step.seconds for step in steps)
    assert 64 / slowest < (found.images_per_second.median or 0) < 64 / fastest
    assert fastest < (found.step_seconds.median or 0) < slowest


def test_a_run_that_was_ended_in_its_warm_up_says_so(tmp_path: Path) -> None:
    assert (
        ended(tmp_path, 3, 2.0).step_seconds.reason == "fewer steps than the 5 of warm-up: train longer, or lower --warmup-steps"
    )


def test_of_an_attempt_that_never_began_nothing_is_summed_up(tmp_path: Path) -> None:
    assert ended(tmp_path, 107, None).step_seconds.reason == NOT_YET
