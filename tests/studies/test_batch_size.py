"""batch-size: epochs from the second on, the bend, the cost of a step, and memory that ends the doubling."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.pool import Pool
from scalelab.record.schema import Figure, Host, Step
from scalelab.record.study import Findings, StudyRecord
from scalelab.studies.batch_size import batch_size
from scalelab.studies.batch_size.batch_figures import compared, epoch_seconds, whole_epochs
from scalelab.studies.batch_size.batch_sentences import possible
from scalelab.studies.batch_size.batch_size import STUDY, Footprint, give_up, too_large
from scalelab.studies.figures import ONE
from scalelab.studies.study import Result, Run
from tests.conftest import Command
from tests.studies import made
from tests.trainings import completed, tiny

BATCHES = [32, 64, 128, 256, 512]
GIB = 1 << 30


def steps_of(folder: Path, seconds: float, batch: int, epochs: int, noise: float = 0.0) -> None:
    """Write a run's steps: the first epoch takes ten times as long; a tenth of each step is waiting for data."""
    each = made.SAMPLES // batch
    lines = [
        Step(
            step=epoch * each + place + 1, epoch=epoch + 1, batch=batch, learning_rate=0.1, loss=1.0, data_seconds=seconds / 10,
            seconds=seconds * (10 if epoch == 0 else 1 + noise * (epoch % 3 - 1)),
        )
        for epoch in range(epochs) for place in range(each)
    ]  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "steps.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def findings(tmp_path: Path, step: Callable[[int], float], noise: float = 0.002, cache: int = 8 << 20) -> Findings:
    """batch-size where a step of a batch takes ``step(batch)`` seconds; an image has 64 KiB of activations."""
    asked = made.asked(STUDY, batch=BATCHES)
    results = []
    for point in STUDY.points(asked):
        batch = int(point.factors["batch"])
        folder = tmp_path / str(batch)
        steps_of(folder, step(batch), batch, 5, noise)
        record = made.record(point, step(batch), batch, memory_bytes=made.holding(batch << 16))
        results.append(Result(point, [Run(0, folder, made.on(record, Host(name="lab", cache_bytes=cache)))]))
    return STUDY.analyse(asked, results)


def test_an_epoch_is_one_of_those_from_the_second_on(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda batch: 0.01 + 1e-3 * batch)
    row = found.tables[0].rows[0]
    assert row.figures["epoch_seconds"].median == pytest.approx(200 * 0.042, rel=0.01)
    assert row.figures["epoch_seconds"].n == 4
    assert row.figures["epoch_data"].median == pytest.approx(200 * 0.0042, rel=0.01)
    assert row.figures["images_per_second"].median == pytest.approx(32 / 0.042, rel=0.01)
    assert row.figures["of_smallest"].median == 1


def test_an_epoch_that_was_cut_off_does_not_count() -> None:
    steps = [
        Step(step=n, epoch=1 + n // 4, batch=8, learning_rate=0.1, loss=1.0, seconds=1.0, data_seconds=0.1) for n in range(10)
    ]
    assert [len(epoch) for epoch in whole_epochs(steps, 4)] == [4]
    assert whole_epochs(steps[:4], 4) == []


def test_without_a_second_epoch_that_is_said() -> None:
    point = STUDY.points(made.asked(STUDY, batch=[64]))[0]
    found = epoch_seconds(Run(0, Path("nowhere"), made.record(point, 0.1, 64)))
    assert found.median == pytest.approx(0.1 * made.SAMPLES / 64)
    assert "no second epoch was trained whole" in (found.reason or "")


def test_that_is_said_of_several_repeats_too() -> None:
    point = STUDY.points(made.asked(STUDY, batch=[64]))[0]
    found = STUDY.analyse(made.asked(STUDY, batch=[64]), [made.result(point, *[made.record(point, 0.1, 64)] * 3)])
    figures = found.tables[0].rows[0].figures
    for key in ("epoch_seconds", "epoch_compute", "epoch_data", "images_per_second", "step_seconds"):
        assert "no second epoch was trained whole" in (figures[key].reason or ""), key
    (note,) = found.notes
    assert note.startswith("where no second epoch was trained whole, the time of an epoch is that of a step")
    assert "no other batch was trained" in found.answer
    assert found.cards[0].sub == "the only one that was trained"


def test_a_ratio_of_blocks_is_not_said_to_be_one_of_epochs() -> None:
    small, large = STUDY.points(made.asked(STUDY, batch=[32, 64]))
    ratio = compared(*(made.result(point, made.record(point, 0.1, int(point.factors["batch"]))) for point in (large, small)))
    assert ratio.median == pytest.approx(2.0)
    assert ratio.reason == ONE


def test_the_bend_is_the_smallest_batch_within_five_per_cent_of_the_best(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda batch: 0.004 + 0.001 * batch)  # 32: 89 %, 64: 94.8 %, 128: 97.7 % of the best
    assert found.answer.startswith("In these single trainings, batch 128 is enough")
    costs = found.tables[1].rows[0].figures
    assert costs["overhead"].median == pytest.approx(0.9 * 0.004, rel=0.05)  # a tenth is waiting for data
    assert costs["half"].median == pytest.approx(4, rel=0.05)
    assert any("a twentieth from 76 images on" in one for one in found.sentences)


def test_steps_that_are_no_line_are_not_explained_by_one(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda batch: batch * (0.001 if batch <= 128 else 0.002))
    assert any(one.startswith("In these single trainings, no one line is seen in the steps") for one in found.sentences)
    assert any(
        "From batch 256 on activations (16.0 MiB) are larger than the largest cache (8.00 MiB)" in one for one in found.sentences
    )
    assert any("batch 512 has 0.500×" in one and "larger is slower" in one for one in found.sentences)
    assert "batch 32 is enough" in found.answer or "batch 32:" in found.answer


def test_a_best_at_the_end_is_said_to_be_one(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda batch: 1.0 + 0.0001 * batch)
    assert found.answer.startswith("In these single trainings, batch 512:")
    assert "a larger one may do better" in found.answer


@pytest.mark.parametrize(("noise", "shown"), [(0.002, True), (0.4, False)])
def test_only_what_intervals_show_is_claimed(tmp_path: Path, noise: float, shown: bool) -> None:
    found = findings(tmp_path, lambda batch: 1.0 + 0.0001 * batch, noise)
    assert ("no smaller batch is within 5 % of it;" in found.answer) is shown
    assert ("that no smaller batch is within 5 % of it, the intervals do not show" in found.answer) is not shown
    assert found.cards[0].label == ("Take batch" if shown else "Batch")
    bent = findings(tmp_path / "bent", lambda batch: batch * (0.001 if batch <= 128 else 0.002), noise)
    assert any("an image does not cost the same in all batches" in one for one in bent.sentences) is shown
    enough = findings(tmp_path / "enough", lambda batch: 0.004 + 0.001 * batch, noise)
    assert ("batch 128 is enough" in enough.answer) is shown
    assert ("batch 128 may be enough" in enough.answer) is not shown


def test_nothing_is_claimed_of_a_share_that_cannot_be() -> None:
    assert possible(Figure(unit="ratio", median=0.9, n=3))
    assert not possible(Figure(unit="ratio", median=1.005, n=3, ci95=(0.269, 2.497)))
    assert not possible(Figure(unit="ratio", reason="the ceiling was measured while the machine was busy"))


def test_activations_are_held_against_the_caches(tmp_path: Path) -> None:
    assert any("every batch are smaller than" in one for one in findings(tmp_path, lambda b: 0.001 * b, cache=GIB).sentences)
    rows = findings(tmp_path / "again", lambda b: 0.001 * b).tables[0].rows
    assert rows[1].figures["of_cache"].median == pytest.approx(0.5)


def test_waiting_for_data_is_apart(tmp_path: Path) -> None:
    assert any(": 10.0 % of an epoch, by the medians" in one for one in findings(tmp_path, lambda b: 0.001 * b).sentences)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "ddp"}, "--strategy ddp: batch-size is about one worker; weak-scaling varies batches and workers"),
        ({"workers": 2}, "--workers 2: batch-size is about one worker; weak-scaling varies batches and workers"),
    ],
)
def test_more_than_one_worker_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ScalelabError) as refused:
        STUDY.points(made.asked(STUDY, **values))
    assert str(refused.value) == message


def test_what_would_not_fit_is_told_with_both_numbers() -> None:
    known = Footprint(fixed=GIB, each=1 << 20, image=12_288, process=GIB / 2, available=5 * GIB)
    assert too_large(known, 2048, 2048) is None
    assert too_large(known, 4096, 4096) == (
        "memory: would need about 6.75 GiB (1.00 MiB of tensors an image), and 5.00 GiB are free; --accumulate 2 halves what an image takes"
    )
    assert too_large(known, 4096, 2048) is None


def test_the_prediction_is_what_a_training_takes(pool: Pool, tmp_path: Path) -> None:
    """Tensors of a step, by a line through two small ones."""
    values = {"model_args": {"width": 16}, "image_size": 32, "train_limit": 64, "batch": 64, "steps": 1, "evaluate": False}
    row = training.prepare(pool, tiny(tmp_path, **values))
    known = msgspec.convert(pool.ask(batch_size.TARGET, row.spec), Footprint)
    tensors = completed(pool, tmp_path, **values, probe_steps=1).memory_bytes.tensors
    assert tensors is not None
    copy = tensors.parameters + tensors.optimizer
    assert known.fixed + known.each * 64 == pytest.approx(sum(tensors.per_worker) + copy, rel=0.15)
    assert known.available > 0
    vast = replace(row, derived=msgspec.structs.replace(row.derived, batch=10**9, micro_batch=10**9))
    assert [why is None for why in batch_size.foresee(pool, [row, vast])] == [True, False]


def test_a_training_that_died_of_memory_ends_the_doubling() -> None:
    small, middle, large = STUDY.points(made.asked(STUDY, batch=[32, 64, 128]))
    fine = made.result(small, made.record(small, 0.1, 32))
    assert (
        give_up(large, [fine, made.failed(middle, "out of memory: lower --micro-batch")])
        == "not tried: batch 64 ran out of memory"
    )
    killed = give_up(large, [fine, made.failed(middle, "ended with signal 9 (SIGKILL: often the kernel's)")])
    assert killed == "not tried: batch 64 was killed, as the system does with what takes too much memory"
    assert give_up(large, [fine, made.failed(middle, "the loss became nan")]) is None
    assert give_up(small, [made.failed(middle, "out of memory")]) is None


def test_a_study_goes_on_without_what_died_of_memory(command: Command, tmp_path: Path) -> None:
    model = tmp_path / "greedy.py"
    model.write_text(
        "import os\n"
        "from torch import nn\n"
        "class Greedy(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        if len(x) >= 24 and 'RANK' in os.environ:\n"  # not in the steps that are tried before the study begins
        "            raise MemoryError('so many images')\n"
        "        return super().forward(x)\n"
        "def build(num_classes):\n"
        "    return Greedy(nn.Flatten(), nn.Linear(192, num_classes))\n"
    )
    words = [
        "--model",
        f"{model}:build",
        "--data",
        "synthetic",
        "--image-size",
        8,
        "--classes",
        4,
        "--train-limit",
        96,
        "--epochs",
        2,
    ]
    ended = command("study", "batch-size", *words, "--batch", 6, 12, 24, "--repeats", 1, "--out", tmp_path / "study", "--json")
    assert ended.status == 1
    record = msgspec.json.decode(ended.out, type=StudyRecord)
    assert json.loads(ended.out)["status"] == "partly"
    by_batch = {row.factors["batch"]: row for row in record.rows}
    assert [by_batch[batch].status for batch in (6, 12, 24)] == ["completed", "completed", "failed"]
    assert (by_batch[24].reason or "").startswith("out of memory")
    assert any("was not trained" in one for one in record.sentences)
