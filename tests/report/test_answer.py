"""The sentence claims what the intervals allow, and nothing else."""

from __future__ import annotations

import msgspec

from scalelab.measure.statistics import resolution
from scalelab.record.schema import Figure
from scalelab.report.answer import sentence
from tests.report import samples


def with_rate(key: str, median: float, low: float, high: float, **changes):
    figure = Figure(unit="images/s", median=median, n=20, mad=1.0, ci95=(low, high))
    return msgspec.structs.replace(samples.record(key, **changes)[0], images_per_second=figure)


def with_accuracy(record, accuracy: float):
    return msgspec.structs.replace(record, accuracy=accuracy)


def test_the_fastest_is_named_with_interval_and_efficiency() -> None:
    answer = sentence([with_rate("single", 100, 99, 101), with_rate("ddp", 162, 160, 164), with_rate("zero3", 120, 119, 121)])
    assert answer.startswith("ddp × 2 trained 1.62× as fast as single (95 % interval 1.59–1.65), 81 % efficiency")
    assert "zero3 × 2 was the slowest at 1.20×" in answer


def test_no_difference_is_claimed_when_the_interval_holds_one() -> None:
    answer = sentence([with_rate("single", 100, 90, 110), with_rate("ddp", 104, 95, 112)])
    assert "no run is measurably faster than single" in answer
    assert "efficiency" not in answer


def test_slower_than_single_is_said() -> None:
    assert "no run is faster than single" in sentence([with_rate("single", 100, 99, 101), with_rate("ddp", 80, 79, 81)])


def test_runs_level_with_the_fastest_are_named() -> None:
    answer = sentence([with_rate("single", 100, 99, 101), with_rate("ddp", 162, 158, 166), with_rate("zero1", 160, 156, 164)])
    assert "zero1 × 2 (1.60×, 80 % efficiency) is not measurably slower than it" in answer
    assert "slowest" not in answer


def test_all_cores_ahead_still_leaves_the_best_of_several_workers() -> None:
    answer = sentence([with_rate("single", 100, 99, 101), with_rate("all", 190, 189, 191), with_rate("ddp", 162, 160, 164)])
    assert "over several workers ddp × 2 (1.62×, 81 % efficiency) was the fastest" in answer


def test_equal_accuracies_are_the_same_within_their_range() -> None:
    records = [with_accuracy(samples.record("single")[0], 0.95), with_accuracy(samples.record("ddp")[0], 0.956)]
    assert "both runs reached the same test accuracy within 0.6 points (95.0–95.6 %)" in sentence(records)


def test_accuracies_that_the_test_images_tell_apart_are_not_called_the_same() -> None:
    records = [with_accuracy(samples.record("single")[0], 0.95), with_accuracy(samples.record("ddp")[0], 0.55)]
    answer = sentence(records)
    assert "same" not in answer
    assert "from 55.0 % (ddp × 2) to 95.0 % (single)" in answer


def test_a_run_that_trained_less_is_left_out_of_the_accuracies() -> None:
    short = with_accuracy(samples.record("ddp", epochs=1)[0], 0.2)
    assert "20.0" not in sentence([samples.record("single")[0], short])


def test_resolution_shrinks_with_more_images() -> None:
    assert resolution(0.9, 360) > 3 * resolution(0.9, 10_000)


def test_tasks_are_answered_apart() -> None:
    records = [samples.record("single")[0], samples.record("ddp")[0], samples.record("ddp", spec={"model": "resnet18"})[0]]
    answer = sentence(records)
    assert answer.startswith("Two tasks, each compared only with itself.")
    assert "resnet18 on digits: " in answer


def test_a_failed_run_is_in_the_answer_and_is_not_the_fastest() -> None:
    died = msgspec.structs.replace(with_rate("zero1", 900, 899, 901), status="failed", failure=samples.failed()[0].failure)
    answer = sentence([with_rate("single", 100, 99, 101), with_rate("ddp", 162, 160, 164), died])
    assert answer.startswith("ddp × 2 trained")
    assert "zero1 × 2 failed (RuntimeError" in answer


def test_without_single_the_runs_are_compared_with_each_other() -> None:
    answer = sentence([with_rate("ddp", 162, 160, 164), with_rate("zero3", 120, 119, 121)])
    assert "ddp × 2 was the fastest at 162 images/s" in answer
    assert "1.35× as fast as zero3 × 2" in answer


def test_a_run_without_figures_yet() -> None:
    record, _ = samples.record("ddp", status="running", epochs=0)
    assert "is still running" in sentence([record])
