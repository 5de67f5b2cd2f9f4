"""Study hosts: its points, what it claims of several hosts against one, and what each epoch used, by figures that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scalelab.errors import ScalelabError
from scalelab.measure.statistics import figure
from scalelab.record import samples
from scalelab.record.schema import Epoch, Figure, Host, Resources, Sample, Step, TrainRecord
from scalelab.record.study import Findings
from scalelab.studies.hosts import epochs
from scalelab.studies.hosts.hosts import STUDY
from scalelab.studies.hosts.together import SHORT, of_ideal, summed
from scalelab.studies.study import Asked, Point, Result, Run
from tests.studies import made


def asked(*places: tuple[str, int], **values: Any) -> Asked:
    options = {"weak": values.pop("weak", False)}
    base = made.asked(STUDY, **{"batch": 48, **values}).base
    return Asked(base, {}, options, False, 4, places, ",".join(f"{name}:{slots}" for name, slots in places))


TWO = asked(("h1", 2), ("h2", 1))


def test_each_host_trains_alone_and_all_together_with_equal_and_measured_shares() -> None:
    found = [(one.hosts, one.spec.workers, one.spec.shares, one.spec.batch) for one in STUDY.points(TWO)]
    assert found == [
        (("h1",), 2, None, 48), (("h2",), 1, None, 48), (("h1", "h2"), 3, None, 48), (("h1", "h2"), 3, "measured", 48),
    ]  # fmt: skip


def test_weak_keeps_the_share_of_a_worker() -> None:
    found = STUDY.points(asked(("h1", 2), ("h2", 1), weak=True))
    assert [(one.spec.batch, one.spec.batch_per_worker) for one in found] == [(None, 24)] * 4


@pytest.mark.parametrize(
    ("places", "values", "said"),
    [
        ((("h1", 2),), {}, "one host has none to be compared with"),
        ((("h1", 1), ("h2", 1)), {"strategy": "single"}, "name a parallel one"),
        ((("h1", 1), ("h2", 1)), {"workers": 4}, "each host of this study trains with all its workers"),
        ((("h1", 1), ("h2", 1)), {"evaluate": False}, "leave it out"),
        ((("h1", 3), ("h2", 1)), {"batch": 64, "weak": True}, "does not divide over the 3 workers of h1"),
    ],
)
def test_what_cannot_be_asked_is_refused(places: Sequence[tuple[str, int]], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ScalelabError, match=said):
        STUDY.points(asked(*places, **values))


def trained(point: Point, step: float, *noise: float, accuracy: float = 0.9, **more: Any) -> Result:
    """A point whose repeats take ``step`` seconds, each times one of ``noise``."""
    learnt = {
        "accuracy": accuracy,
        "precision": accuracy,
        "recall": accuracy,
        "learning_rate": 0.1,
        "train_loss": 1.0,
        "test_loss": 1.0,
    }
    epoch = Epoch(epoch=1, steps=10, seconds=10 * step, images_per_second=48 / step, **learnt)
    records = [made.record(point, step * one, 48, epochs=[epoch], seconds=11 * step, **more) for one in noise or (1.0,)]
    return made.result(point, *records)


def found(first: float, second: float, equal: float, measured: float, *noise: float, **more: Any) -> Findings:
    """Seconds of a step of each point."""
    results = [
        trained(point, step, *noise, **more)
        for point, step in zip(STUDY.points(TWO), (first, second, equal, measured), strict=True)
    ]
    return STUDY.analyse(TWO, results)


def test_the_answer_takes_the_faster_way_of_sharing_and_says_how_much_of_the_sum_arrives() -> None:
    told = found(0.2, 0.4, 0.19, 0.15, 1.0, 1.001, 0.999)
    assert told.answer.startswith("h1 and h2 together, with measured shares of the batch, train 1.33× (1.33–1.33×)")
    assert "h1 alone: 88.9 % (88.9–88.9 %) of what each trains alone, added up" in told.answer
    assert any(one.endswith("they pay.") for one in told.sentences)
    assert any(one.startswith("h2 alone trains 0.500×") for one in told.sentences)


def test_every_column_is_filled_the_share_of_the_hosts_ceilings_too() -> None:
    table = found(0.2, 0.4, 0.19, 0.15).tables[0]
    assert "achieved" in [one.key for one in table.columns]
    assert all(column.key in {**row.factors, **row.figures} for row in table.rows for column in table.columns)


def test_a_speedup_that_was_not_shown_is_not_claimed() -> None:
    results = [
        trained(point, 0.2, *noise)
        for point, noise in zip(STUDY.points(TWO), ((1.0, 1.3), (1.0, 1.0), (1.2, 1.0), (1.3, 1.0)), strict=True)
    ]
    told = STUDY.analyse(TWO, results)
    assert "were not shown to be faster or slower than h1 alone" in told.answer
    assert any(one.endswith("what h1 alone trains, which is no shown difference.") for one in told.sentences)


def test_of_single_trainings_that_is_said() -> None:
    told = found(0.2, 0.4, 0.19, 0.15)
    assert told.answer.startswith("In these single trainings, h1 and h2 together")
    assert all(one.sub.endswith("; one training") or "; one training; " in one.sub for one in told.cards)
    ideal = told.tables[0].rows[2].figures["ideal"]
    assert ideal.reason is not None
    assert ideal.reason.startswith("one training")


def test_a_share_of_the_ideal_without_an_interval_says_why() -> None:
    rate = Figure(unit="images/s", median=100.0, n=1, reason="too few blocks")
    results = [trained(point, 0.2, images_per_second=rate) for point in STUDY.points(TWO)[:3]]
    assert of_ideal(results[2], results[:2]) == Figure(unit="ratio", median=0.5, n=1, reason=SHORT)


def test_hosts_that_are_slower_together_are_said_to_be() -> None:
    assert "train only 0.500×" in found(0.2, 0.2, 0.5, 0.4, 1.0, 1.001, 0.999).answer


def test_accuracies_are_the_same_where_the_test_set_cannot_tell_them_apart() -> None:
    points = STUDY.points(TWO)
    near = [trained(point, 0.2, accuracy=value) for point, value in zip(points, (0.5, 0.6, 0.5, 0.5), strict=True)]
    assert any(
        "Accuracies of 50.0 % to 60.0 % can't be told apart with 10 test images" in one
        for one in STUDY.analyse(TWO, near).sentences
    )
    far = [trained(point, 0.2, accuracy=value) for point, value in zip(points, (0.0, 1.0, 1.0, 1.0), strict=True)]
    assert any("by more than 10 test images leave to chance" in one for one in STUDY.analyse(TWO, far).sentences)


def test_a_point_that_failed_leaves_the_rest_told() -> None:
    points = STUDY.points(TWO)
    results = [*(trained(point, 0.2, 1.0, 1.001) for point in points[:3]), made.failed(points[3], "h2 is gone")]
    told = STUDY.analyse(TWO, results)
    assert told.tables[0].rows[3].status == "failed"
    assert told.answer.startswith("h1 and h2 together were not shown") or "together train" in told.answer


def test_independent_figures_add_up_with_their_intervals() -> None:
    a, b = Figure(unit="x", median=10, n=3, ci95=(7, 13)), Figure(unit="x", median=20, n=4, ci95=(16, 24))
    assert summed([a, b]) == Figure(unit="x", median=30, n=3, ci95=(25, 35))
    assert summed([a, Figure(unit="x", reason="broken")]).reason == "broken"


def folder_with(tmp_path: Path) -> Run:
    """A training of 2 hosts, 2 + 1 workers: two epochs of two seconds, an evaluation of one second between; a sample each second."""
    steps = [
        Step(step=n + 1, epoch=epoch, batch=48, learning_rate=0.1, loss=1.0, seconds=1.0, data_seconds=0.0, at=at)
        for n, (epoch, at) in enumerate([(1, 101.0), (1, 102.0), (2, 104.0), (2, 105.0)])
    ]
    (tmp_path / "steps.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in steps))
    (tmp_path / samples.FOLDER).mkdir()
    for rank, cpu in enumerate((50.0, 70.0, 90.0)):
        taken = [
            Sample(at=at, rank=rank, cpu_percent=cpu if at < 102.7 else 100.0, threads=1, resident_bytes=int(at) + rank)
            for at in (101.2, 102.2, 103.2, 104.2, 105.2)
        ]
        samples.path(tmp_path, rank).write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in taken))
    record: TrainRecord = made.record(STUDY.points(TWO)[2], 1.0, 48)
    record = made.on(record, Host(name="h1", workers=2), Host(name="h2", workers=1))
    record.spec["sample_seconds"] = 1.0
    return Run(0, tmp_path, record)


def test_an_epoch_has_the_samples_taken_in_it(tmp_path: Path) -> None:
    run = folder_with(tmp_path)
    looked = {tmp_path: epochs.seen(run)}
    assert epochs.used(run, looked, "cpu", 1).median == pytest.approx(0.7)
    assert epochs.used(run, looked, "cpu", 2).median == pytest.approx(1.0)
    assert epochs.used(run, looked, "memory", 1).median == 104
    assert epochs.used(run, looked, "cpu", 3).reason == epochs.SHORT
    assert epochs.used(run, looked, "gpu", 1).reason == epochs.NO_GPU


def test_a_host_has_the_samples_of_its_workers(tmp_path: Path) -> None:
    run = folder_with(tmp_path)
    looked, ranks = {tmp_path: epochs.seen(run)}, epochs.ranks_of(run.record)
    assert ranks == {"h1": range(2), "h2": range(2, 3)}
    assert epochs.used(run, looked, "cpu", 1, ranks["h1"]).median == pytest.approx(0.6)
    assert epochs.used(run, looked, "cpu", 1, ranks["h2"]).median == pytest.approx(0.9)


def test_threads_are_of_the_busiest_host() -> None:
    places = (("h1", 2), ("h2", 4))
    assert [asked(*places).busiest(count) for count in (1, 2, 3, 6)] == [1, 2, 2, 4]
    assert asked().busiest(3) == 3


def test_a_busy_host_is_named() -> None:
    used = figure([20.0, 21.0, 19.0], "%")
    resources = Resources(sample_seconds=1.0, **{name: used for name in Resources.__struct_fields__ if name != "sample_seconds"})
    points = STUDY.points(asked(("h1", 1), ("h2", 1), threads_per_worker=1))
    results = [trained(point, 0.2, resources=resources) for point in points]
    told = STUDY.analyse(TWO, results)
    assert (
        sum(
            "was busy: its one worker, which has nobody to wait for, got 20 % of its core's time" in one for one in told.sentences
        )
        == 2
    )
