"""Two runs: what was set differently, what differs beyond chance, how far the losses part."""

from __future__ import annotations

import msgspec
import pytest

from scalelab.record.schema import Attempt
from scalelab.report.compare import compare, timed
from tests.report import samples


def figures(found):
    return {one.name: one for one in found.figures}


def test_spec_differences_are_named() -> None:
    found = compare(*_pair(samples.record("single"), samples.record("ddp")))
    assert ("strategy", "single", "ddp") in [(one.key, one.a, one.b) for one in found.spec]
    assert "model" not in [one.key for one in found.spec]
    assert found.alike


def test_a_real_difference_is_claimed_with_its_interval() -> None:
    found = figures(compare(*_pair(samples.record("single"), samples.record("ddp"))))["images_per_second"]
    low, high = found.ratio.ci95
    assert 1 < low < found.ratio.median < high
    assert found.ratio.median == pytest.approx(14.6 / 9.0, rel=0.05)
    assert found.differs


def test_the_ratio_is_of_the_records_own_figures() -> None:
    a, b = samples.record("single"), samples.record("ddp")
    found = figures(compare(*_pair(a, b)))["step_seconds"]
    assert found.ratio.median == pytest.approx(b[0].step_seconds.median / a[0].step_seconds.median, rel=1e-9)


def test_chance_is_not_a_difference() -> None:
    found = figures(compare(*_pair(samples.record("ddp", 1), samples.record("ddp", 2))))["step_seconds"]
    assert not found.differs


def test_an_absent_figure_has_no_ratio_and_its_reason() -> None:
    found = figures(compare(*_pair(samples.record("single"), samples.record("ddp"))))["communication_seconds.exposed"]
    assert found.ratio.median is None
    assert "nobody to talk to" in found.ratio.reason


def test_the_largest_loss_difference_is_found_with_its_step() -> None:
    record, steps = samples.record("ddp")
    moved = [msgspec.structs.replace(step, loss=step.loss * 1.25) if step.step == 40 else step for step in steps]
    found = compare(record, record, steps, moved)
    assert found.loss_step == 40
    assert found.loss.median == pytest.approx(0.2)
    assert found.loss.n == len(steps)


def test_losses_without_a_common_step_are_absent() -> None:
    record, steps = samples.record("ddp")
    found = compare(record, record, steps[:10], steps[50:])
    assert found.loss.median is None
    assert found.loss_step is None


def test_runs_without_steps_are_compared_by_their_records() -> None:
    (a, _), (b, _) = samples.record("single"), samples.record("ddp")
    found = figures(compare(a, b, [], []))["images_per_second"]
    assert found.ratio.median == b.images_per_second.median / a.images_per_second.median
    assert found.differs


def test_environment_differences_are_named() -> None:
    a, steps = samples.record("ddp")
    changed = msgspec.structs.replace(a.environment, git_commit="abc", device="cuda")
    found = compare(a, msgspec.structs.replace(a, environment=changed), steps, steps)
    assert [one.key for one in found.environment] == ["device", "git commit"]
    assert not found.alike


def test_only_the_last_attempt_is_timed_without_its_warmup() -> None:
    record, steps = samples.record("ddp")
    resumed = msgspec.structs.replace(record, attempts=[Attempt(started="x"), Attempt(started="y", first_step=44)])
    assert timed(resumed, steps)[0].step == 44 + 5 + 1
    assert timed(record, steps)[0].step == 6


def _pair(a, b):
    return a[0], b[0], a[1], b[1]
