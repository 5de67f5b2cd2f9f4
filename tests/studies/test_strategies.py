"""The study strategies: what is tried, who is on the front, which is to be taken, how large a batch fits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scalelab.errors import ScalelabError
from scalelab.record.study import Findings
from scalelab.studies.strategies import front
from scalelab.studies.strategies.choosing import exact
from scalelab.studies.strategies.strategies import STUDY
from scalelab.studies.study import Asked, Point, Result
from tests.studies import untrained
from tests.studies.learned import asked

ALONE = {"single": (1000.0, 100.0), "single, all 2 cores": (1500.0, 100.0)}


def question(
    names: tuple[str, ...] = ("ddp", "zero3"), memory: str = "", models: tuple[str, ...] = ("basic_cnn",), **base: Any
) -> Asked:
    return asked(STUDY, {"strategy": list(names), "engine": ["torch"], "model": list(models)}, {"memory": memory}, **base)


def trained(ask: Asked, figures: dict[str, tuple[float, float]], about: dict[str, dict[str, Any]] | None = None) -> list[Result]:
    """Every point with its images/s and MiB, by its name; what has none is refused."""
    found = []
    for point in STUDY.points(ask):
        way = str(point.factors["way"])
        if way not in figures:
            found.append(Result(point, (), "not here"))
            continue
        rate, mib = figures[way]
        found.append(untrained.result(point, rate, memory_bytes=untrained.memory(mib), **(about or {}).get(way, {})))
    return found


def findings(figures: dict[str, tuple[float, float]], about: dict[str, dict[str, Any]] | None = None, **ask: Any) -> Findings:
    asked_for = question(**ask)
    return STUDY.analyse(asked_for, trained(asked_for, {**ALONE, **figures}, about))


def names(points: list[Point]) -> list[str]:
    return [str(p.factors["way"]) for p in points]


def test_the_points_are_every_cell_with_the_engines_asked_for() -> None:
    ask = asked(STUDY, {})
    found = names(STUDY.points(ask))
    assert found[:2] == ["single", "single, all 2 cores"]
    assert {"ddp × 2", "ddp × 2 on deepspeed", "ddp × 2 on horovod", "zero3 × 2 on deepspeed", "local-sgd × 2", "dp"} <= set(
        found
    )
    assert len(found) == len(set(found))


def test_hybrids_are_there_where_the_workers_allow() -> None:
    found = names(STUDY.points(question(("ddp", "zero1", "zero3", "pipeline"), workers=4)))
    assert found[2:] == [
        "ddp × 4", "zero1 × 4", "zero3 × 4", "zero3 × 4 (2 replicas × 2 shards)", "pipeline × 4",
        "pipeline × 4 (2 replicas × 2 stages)",
    ]  # fmt: skip


def test_all_points_have_one_batch_and_one_number_of_threads() -> None:
    points = STUDY.points(question(("ddp", "pipeline"), batch_per_worker=32))
    assert {p.spec.batch for p in points} == {64}
    assert {p.spec.threads_per_worker for p in points if p.factors["role"] != "all cores"} == {1}
    assert [p.spec.accumulate for p in points if p.spec.strategy == "pipeline"] == [8]


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        ({"workers": 1}, "there is nothing to spread"),
        ({"compile": True}, "--compile: leaves out the probes that this study reads"),
        ({"probe_steps": 0}, "--probe-steps 0: leaves out the probes that this study reads"),
        ({"memory": "much"}, "--memory 'much': expected a size"),
        ({"names": ("single",)}, "none of the strategies single"),
        ({"names": ("fsdp",)}, "is called zero3 here"),
        ({"memory": "1KiB"}, "--memory 1KiB: holds no training, whatever the strategy"),
    ],
)
def test_what_cannot_be_asked_is_refused(ask: dict[str, Any], why: str) -> None:
    with pytest.raises(ScalelabError, match=why):
        STUDY.points(question(**ask))


def standing(found: Findings) -> dict[str, Any]:
    return {str(row.factors["way"]): row.factors["front"] for row in found.tables[0].rows}


def test_what_is_faster_and_holds_no_more_beats() -> None:
    found = standing(findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1400.0, 40.0)}))
    assert found == {
        "single": "beaten by ddp × 2", "single, all 2 cores": "beaten by ddp × 2", "ddp × 2": "on it", "zero3 × 2": "on it",
    }  # fmt: skip


def test_nothing_beats_by_less_than_its_interval() -> None:
    found = standing(findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1880.0, 60.0)}))
    assert found["ddp × 2"] == "on it"
    assert found["zero3 × 2"] == "open"


def test_less_memory_at_the_same_speed_beats() -> None:
    steady = {"noise": (0.999, 1.0, 1.0, 1.0, 1.001)}
    found = standing(findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1900.0, 40.0)}, {"ddp × 2": steady, "zero3 × 2": steady}))
    assert found["ddp × 2"] == "beaten by zero3 × 2"


def test_the_fastest_is_taken_and_the_smallest_named_for_short_memory() -> None:
    found = findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1400.0, 40.0)})
    assert found.answer.startswith("In these single trainings, take ddp × 2: 1,900 images/s, 60.0 MiB for each worker, 1.90×")
    assert "Switch to zero3 × 2 where a worker has less: it holds 40.0 MiB (33 % less) at 0.737×" in found.answer
    assert any("what memory buys: 20.0 MiB more on each worker, from zero3 × 2 to ddp × 2" in s for s in found.sentences)


def test_of_two_that_are_as_fast_the_smaller_is_taken() -> None:
    found = findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1880.0, 40.0)})
    assert found.answer.startswith("In these single trainings, take zero3 × 2")
    assert "ddp × 2 is not shown to be faster, and holds 1.50× as much." in found.answer


def test_wide_intervals_make_nobody_as_fast() -> None:
    """Noise must not decide: what was measured much slower is not taken, though its interval holds more."""
    wide = {"noise": (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0)}
    found = findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1500.0, 40.0)}, {"ddp × 2": wide, "zero3 × 2": wide})
    assert found.answer.startswith("In these single trainings, take ddp × 2")


def test_communication_of_more_than_a_step_is_not_quoted() -> None:
    about = {"ddp × 2": {"communication_seconds": untrained.exposed(5.0)}}
    found = findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1400.0, 40.0)}, about)
    assert not any(s.startswith("In these single trainings, communication costs") for s in found.sentences)


def test_one_process_is_taken_where_nothing_is_faster() -> None:
    found = findings({"ddp × 2": (500.0, 110.0), "zero3 × 2": (400.0, 120.0)})
    assert found.answer.startswith("In these single trainings, take single, all 2 cores")


def test_memory_decides_what_fits() -> None:
    found = findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1400.0, 40.0)}, memory="50MiB")
    assert found.answer.startswith("In these single trainings, take zero3 × 2: 1,400 images/s")
    none = findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1400.0, 40.0)}, memory="30MiB")
    assert (
        none.answer == "Nothing fits into 30.0 MiB (--memory): zero3 × 2 needs least, 40.0 MiB for each worker with this batch."
    )


def test_what_learns_otherwise_is_named_and_not_taken() -> None:
    found = findings({"ddp × 2": (1200.0, 60.0), "local-sgd × 2": (1900.0, 60.0)}, names=("ddp", "local-sgd"))
    assert "Take local-sgd" not in found.answer
    assert "local-sgd × 2 is" in found.answer
    assert "does not learn the same" in found.answer
    points = {p.spec.strategy: p for p in STUDY.points(question(("ddp", "local-sgd")))}
    assert exact(Result(points["ddp"]))
    assert not exact(Result(points["local-sgd"]))


def test_communication_is_named_only_where_it_was_shown() -> None:
    about = {
        "ddp × 2": {"communication_seconds": untrained.exposed(0.004, (-3.0, -1.0, 1.0, 2.0, 3.0))},
        "zero3 × 2": {"communication_seconds": untrained.exposed(0.02)},
    }
    found = findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1400.0, 40.0)}, about)
    (said,) = [s for s in found.sentences if s.startswith("In these single trainings, communication costs")]
    assert "zero3 × 2 most" in said
    assert "ddp" not in said


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (0.52, "the same, as far as 360"),
        (0.585, "the same, as far as 360"),  # more than two are apart by chance, and not more than the best and the worst of four
        (0.8, "more than 360 test images leave to chance"),
    ],
)
def test_accuracies_differ_only_by_more_than_the_test_set_can_hide(other: float, words: str) -> None:
    about: dict[str, dict[str, Any]] = {way: {"accuracy": 0.5} for way in ALONE}
    about |= {"ddp × 2": {"accuracy": 0.5}, "zero3 × 2": {"accuracy": other}}
    found = findings({"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1400.0, 40.0)}, about)
    (said,) = [s for s in found.sentences if s.startswith("Accuracies")]
    assert words in said


def test_the_largest_batch_fills_the_memory_and_no_more() -> None:
    ask = question()
    result = trained(ask, {**ALONE, "ddp × 2": (1900.0, 60.0), "zero3 × 2": (1.0, 40.0)})[2]
    record = result.completed[0].record
    assert (record.derived.micro_batch, record.derived.replicas) == (64, 2)
    # 30 MiB stay, 30 MiB grow with 64 images: of 0.9 x 300 MiB 512 images take 240, 1024 too many
    assert front.largest(record, 300 * 2**20).median == 512 * 2
    assert front.largest(record, 30 * 2**20).median is None
    assert "not one image fits" in (front.largest(record, 30 * 2**20).reason or "")


def test_a_peak_without_activations_does_not_make_images_free() -> None:
    record = trained(question(), {**ALONE, "ddp × 2": (1900.0, 60.0), "zero3 × 2": (1.0, 40.0)})[2].completed[0].record
    tensors = record.memory_bytes.tensors
    assert tensors is not None
    for at_peak, saved, batch in ((0, 30 * 2**20, 512 * 2), (2**20, 30 * 2**20, 512 * 2), (0, 0, None)):
        update = msgspec.structs.replace(tensors, activations=at_peak, most_activations=saved)
        memory = msgspec.structs.replace(record.memory_bytes, tensors=update)
        assert front.largest(msgspec.structs.replace(record, memory_bytes=memory), 300 * 2**20).median == batch


def test_a_recommended_batch_leaves_an_epoch_its_steps() -> None:
    ask = question()
    record = trained(ask, {**ALONE, "ddp × 2": (1900.0, 60.0), "zero3 × 2": (1.0, 40.0)})[2].completed[0].record
    assert record.data is not None
    many = msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, train=50_000))
    assert front.recommended(many, 300 * 2**20).median == 512 * 2 / 2
    assert front.recommended(many, 100 * 2**20).median == front.largest(many, 100 * 2**20).median == 128 * 2


def test_each_model_has_its_table_and_all_share_that_of_batches() -> None:
    figures = {"ddp × 2": (1900.0, 60.0), "zero3 × 2": (1400.0, 40.0)}
    found = findings(figures, models=("basic_cnn", "resnet18"))
    assert [table.id for table in found.tables] == ["rows", "rows-1", "batches"]
    assert [row.factors["model"] for row in found.tables[2].rows] == ["basic_cnn"] * 4 + ["resnet18"] * 4
    assert found.answer.startswith("basic_cnn: In these single trainings, take ddp × 2")
    assert "resnet18: In these single trainings, take ddp × 2" in found.answer


def test_a_refused_cell_says_why() -> None:
    found = findings({"ddp × 2": (1900.0, 60.0)})
    refused = next(row for row in found.tables[0].rows if row.factors["way"] == "zero3 × 2")
    assert (refused.status, refused.reason) == ("refused", "not here")
    assert refused.factors["front"] == "–"


@pytest.mark.parametrize(("written", "size"), [("8GiB", 8 * 2**30), ("800 MB", 800 * 10**6), ("1.5kib", 1536), ("4096", 4096)])
def test_sizes(written: str, size: int) -> None:
    assert front.size("--memory", written) == size


@pytest.mark.parametrize("written", ["", "GiB", "-1GiB", "3 bananas", "nan", "1e999"])
def test_no_sizes(written: str) -> None:
    with pytest.raises(ScalelabError):
        front.size("--memory", written)
