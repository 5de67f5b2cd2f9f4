"""Time to a target accuracy: every run is counted, those that never reach it too."""

from __future__ import annotations

import msgspec
import pytest

from scalelab.batch import Segment
from scalelab.errors import ScalelabError
from scalelab.studies.learning.convergence import STUDY, analyse, points
from scalelab.studies.learning.reaching import COSTS, Time, median
from tests.studies.learned import asked, result

SLOW, SOON, NEVER = [0.3, 0.5, 0.7], [0.5, 0.7], [0.3, 0.4, 0.5]


def question(**base):
    return asked(STUDY, {"strategy": ["single"], "batch": [32, 64]}, **{"target_accuracy": 0.7, "epochs": 3, **base})


def answered(first, second, **base):
    wanted = question(**base)
    return analyse(wanted, [result(point, curves) for point, curves in zip(points(wanted), (first, second), strict=True)])


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(1, True), (2, True), (3, False)], 2),
        ([(1, True), (2, True), (0.5, False)], 2),  # one that failed early is not a quick one
        ([(1, True), (3, False), (3, False)], None),
        ([(3, False)], None),
        ([(1, True), (3, False)], None),
        ([(1, True), (2, True), (3, True), (3, False)], 2.5),
    ],
)
def test_what_never_reached_the_target_counts_as_longer_than_all_that_did(times, expected):
    assert median([Time(*one) for one in times], "s").median == expected


def test_a_median_that_is_not_known_is_bounded():
    found = median([Time(1, True), Time(3, False), Time(3, False)], "epochs")
    assert (found.median, found.reason) == (None, "1 of 3 trainings reached the target: the median is more than 3 epochs")


def test_with_some_that_never_reached_it_there_is_no_interval():
    found = median([Time(1, True), Time(2, True), Time(3, False)], "s")
    assert (found.median, found.n, found.ci95) == (2, 3, None)
    assert found.reason.startswith("2 of 3 trainings reached the target")


def test_whole_epochs_have_no_interval_without_width_nor_one_below_an_epoch():
    """Seen: 1.00–1.00 and 0.186–32.2 epochs of two seeds."""
    same = median([Time(1, True), Time(1, True)], "epochs", 1.0)
    assert (same.median, same.n, same.ci95) == (1, 2, None)
    assert "too coarse" in same.reason
    apart = median([Time(2, True), Time(3, True)], "epochs", 1.0)
    assert apart.ci95[0] == 1.0
    slow, soon = answered([SLOW, SLOW], [SOON, SLOW]).tables[0].rows
    assert slow.figures["images"].ci95 is None
    assert soon.figures["images"].ci95[0] == 10 * 64


def test_fewest_images_are_only_a_difference_where_it_is_shown():
    wanted = question()
    slow, soon = points(wanted)
    found = analyse(wanted, [result(slow, [SLOW, SLOW]), result(soon, [SOON, SOON], seconds=20.0)])
    assert "fewest images" in found.answer
    assert found.answer.endswith("fewer than the soonest by what may be chance.")
    long = [[0.3] * epochs + [0.7] for epochs in (10, 11, 12)]
    found = analyse(wanted, [result(slow, long), result(soon, [SOON, SLOW, SOON], seconds=200.0)])
    assert "fewest images" in found.answer
    assert "chance" not in found.answer


def test_what_one_seed_reached_may_be_as_soon():
    found = answered([SOON, NEVER], [SOON, SOON])
    assert found.answer.endswith("As far as these seeds can tell, single × 1, batch 32 may be as soon.")


def test_each_row_tells_what_the_target_took():
    found = answered([SLOW, SLOW, SLOW], [SOON, SOON, SLOW])
    slow, soon = found.tables[0].rows
    assert [slow.figures[name].median for name in ("epochs", "seconds", "images")] == [3, 30, 3 * 10 * 64]
    assert [soon.figures[name].median for name in ("epochs", "seconds", "images")] == [2, 20, 2 * 10 * 64]
    assert slow.factors["reached"] == "3 of 3"
    assert found.answer.startswith("6 of 6 trainings reached 70.0 %; the soonest was single × 1, batch 64, in 20.0 s")


def test_images_are_those_of_a_batch_that_changes():
    run = result(points(question())[0], [SLOW]).runs[0]
    parts = tuple(
        Segment(epoch=epoch, batch=batch, micro_batch=batch, accumulate=1, lr=0.1) for epoch, batch in ((0, 64), (1, 256))
    )
    derived = msgspec.structs.replace(run.record.derived, batch=64, segments=parts)
    record = msgspec.structs.replace(run.record, derived=derived)
    assert COSTS["images"][0](record, record.epochs) == 10 * 64 + 2 * 10 * 256


def test_runs_that_never_reach_it_or_fail_are_counted():
    found = answered([SLOW, NEVER, None], [SOON, SOON, NEVER])
    first, second = found.tables[0].rows
    assert (first.factors["reached"], second.factors["reached"]) == ("1 of 3", "2 of 3")
    assert first.figures["seconds"].median is None
    assert second.figures["seconds"].median == 20
    assert second.figures["ratio"].reason == "not all trainings of the two reached the target"
    assert found.answer.startswith("3 of 6 trainings reached 70.0 %")
    assert "single × 1, batch 32: 1 of 3 trainings reached the target" in found.sentences[0]


def test_a_target_that_no_run_reached_is_said_with_the_best_and_what_to_do():
    found = answered([NEVER], [[0.2, 0.3, 0.45]], target_accuracy=0.95)
    assert found.answer == (
        "No training reached 95.0 % within 3 epochs: the best was 50.0 % (single × 1, batch 32). "
        "Ask for less with --target-accuracy, or train longer with --epochs."
    )


def test_a_difference_is_called_one_only_if_its_interval_excludes_1():
    same = answered([SLOW, SOON, SLOW], [SOON, SLOW, SLOW])
    assert "which these seeds can't tell from 1" in same.sentences[0]
    assert same.answer.endswith("may be as soon.")
    sooner = answered([SLOW, SLOW, SLOW], [SOON, SOON, SOON])
    assert sooner.answer.endswith("the soonest was single × 1, batch 64, in 20.0 s and 2 epochs.")
    assert sooner.sentences[0].startswith("single × 1, batch 64 takes 0.667× the time of single × 1, batch 32")


def test_one_seed_claims_nothing():
    found = answered([SLOW], [SOON])
    assert found.answer.endswith("That is one seed: no spread is known, so no difference is claimed; --seeds 3 gives one.")
    assert "in one seed: that may be chance" in found.sentences[0]


def test_both_axes_are_drawn_with_the_target():
    found = answered([SLOW, SLOW, NEVER], [SOON])
    assert [plot.id for plot in found.plots] == ["by-seconds", "by-epochs"]
    line, other, aim = found.plots[0].series
    assert (line.x, line.y) == ([10, 20, 30], SLOW)
    assert (other.x, other.y) == ([10, 20], SOON)
    assert aim.y == [0.7, 0.7]


def test_a_schedule_that_has_not_ended_is_told():
    assert any("--schedule cosine ends at --epochs 3" in note for note in answered([SLOW], [SOON], schedule="cosine").notes)
    assert not any("ends at" in note for note in answered([SLOW], [SOON]).notes)


def test_every_figure_is_there_or_says_why():
    found = answered([None], [SOON])
    for row in found.tables[0].rows:
        assert all(figure.median is not None or figure.reason for figure in row.figures.values())


def test_the_serial_run_has_one_worker_and_the_others_threads():
    wanted = asked(STUDY, {"strategy": ["single", "ddp"], "batch": [64]}, workers=2)
    assert [(p.spec.strategy, p.spec.workers, p.spec.threads_per_worker) for p in points(wanted)] == [
        ("single", 1, 1),
        ("ddp", 2, 1),
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"target_accuracy": None}, "say with --target-accuracy"),
        ({"evaluate": False}, "--no-evaluate"),
        ({"batch_per_worker": 8}, "--batch-per-worker 8"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(values, said):
    with pytest.raises(ScalelabError, match=said):
        points(question(**values))
