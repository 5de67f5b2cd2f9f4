"""What becomes of a study's trainings: found again, extended, failed, interrupted, made with other code. With a toy study."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scalelab import spec as specs
from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from scalelab.record.schema import Figure
from scalelab.record.study import StudyRecord
from scalelab.studies.running import ceiling, keeping, planning, running
from scalelab.studies.running.running import Begins, Ended, Watching
from scalelab.studies.study import Asked, Study
from tests.ceilings import ceilings as ceilings
from tests.studies.toy import STUDY
from tests.trainings import processes_of

pytestmark = pytest.mark.usefixtures("ceilings")


def asked(batches: list[int], **values: Any) -> Asked:
    base = specs.from_mapping({**STUDY.base, **{k: v for k, v in values.items() if k in specs.FIELDS}})
    return Asked(base, {"batch": batches}, {"values": values.get("each", {})}, False, 2)


class Heard(Watching):
    """What began and ended, in order."""

    def __init__(self) -> None:
        self.began: list[Begins] = []
        self.over: list[Ended] = []

    def begins(self, training: Begins) -> Callable[[Path], None]:
        self.began.append(training)
        return lambda folder: None

    def ended(self, training: Ended) -> None:
        self.over.append(training)


def carry_out(
    pool: Pool, folder: Path, question: Asked, repeats: int = 1, study: Study = STUDY, watching: Watching | None = None
) -> StudyRecord:
    planned = planning.plan(pool, study, question, repeats, folder)
    return running.carry_out(pool, planned, watching or Watching())


def folders(folder: Path) -> set[str]:
    return {path.name for path in (folder / "runs").iterdir()}


def test_a_finished_study_starts_no_process_and_answers_the_same(pool: Pool, tmp_path: Path) -> None:
    heard = Heard()
    first = carry_out(pool, tmp_path / "s", asked([8, 12]), watching=heard)
    assert first.status == "completed"
    assert [one.record.status for one in heard.over] == ["completed"] * 2
    with Pool() as unused:
        again = carry_out(unused, tmp_path / "s", asked([8, 12]))
        assert unused._server is None
    same = ("answer", "rows", "tables", "plots", "runs", "ceilings", "status", "asked", "started")
    assert [getattr(again, name) for name in same] == [getattr(first, name) for name in same]
    assert again.seconds is None
    assert all(row.figures["achieved"].median or "busy" in (row.figures["achieved"].reason or "") for row in again.rows)


def test_a_ceiling_of_a_busy_machine_is_measured_again_after_the_last_training(pool: Pool, tmp_path: Path) -> None:
    planned = planning.plan(pool, STUDY, asked([8]), 1, tmp_path)
    rows = [case.row for case in planned.cases if case.row is not None]
    first = ceiling.measured(pool, rows, {})
    ((key, one),) = first.items()
    low = msgspec.structs.replace(one, flops_per_second=Figure(unit="FLOP/s", median=1.0, n=1, reason="busy"), product="none")
    assert ceiling.measured(pool, rows, {key: low}) == {key: low}
    assert (ceiling.measured(pool, rows, {key: low}, again=True)[key].flops_per_second.median or 0) > 1e6


def test_more_repeats_extend_a_study(pool: Pool, tmp_path: Path) -> None:
    first = carry_out(pool, tmp_path, asked([8, 12]), repeats=1)
    more = carry_out(pool, tmp_path, asked([8, 12]), repeats=3)
    assert len(first.runs) == 2
    assert set(first.runs) < set(more.runs) == folders(tmp_path)
    assert [row.figures["images_per_second"].n for row in more.rows] == [3, 3]
    assert any("one repeat" in note for note in first.notes)
    assert not any("one repeat" in note for note in more.notes)
    assert [row.runs for row in carry_out(pool, tmp_path, asked([8, 12]), repeats=3).rows] == [row.runs for row in more.rows]


def test_seeds_train_the_same_point_differently(pool: Pool, tmp_path: Path) -> None:
    record = carry_out(pool, tmp_path, asked([8], seed=5), repeats=2, study=replace(STUDY, seeded=True))
    found = sorted(records.load(tmp_path / "runs" / name).spec["seed"] for name in record.runs)
    assert found == [5, 6]
    losses = [records.load(tmp_path / "runs" / name).losses for name in record.runs]
    assert losses[0] != losses[1]


def test_a_failed_training_is_told_and_tried_again(pool: Pool, tmp_path: Path) -> None:
    model = tmp_path / "model.py"
    model.write_text(f"{BREAKS}\nLIMIT = 8\n")
    question = asked([8, 12], model=f"{model}:build", model_args={})
    first = carry_out(pool, tmp_path / "s", question)
    assert first.status == "partly"
    assert {row.label: row.status for row in first.rows} == {"batch 8": "completed", "batch 12": "failed"}
    assert "too large" in (first.rows[1].reason or "")
    assert first.rows[1].figures["images_per_second"].reason
    assert any("failed; the same command tries them again" in note for note in first.notes)
    model.write_text(f"{BREAKS}\nLIMIT = 99\n")
    second = carry_out(pool, tmp_path / "s", question)
    assert second.status == "completed"
    assert second.rows[0].runs == first.rows[0].runs
    assert second.rows[1].runs != first.rows[1].runs
    assert any(f"{model} changed after some trainings" in note for note in second.notes)


BREAKS = """
import os

from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(192, 4)

    def forward(self, images):
        if images.shape[0] > LIMIT and self.training and "RANK" in os.environ:  # not in what is tried before the study begins
            raise RuntimeError("too large a batch")
        return self.last(images.flatten(1))

def build(num_classes):
    return Model()
"""


def test_other_code_is_said(pool: Pool, tmp_path: Path) -> None:
    first = carry_out(pool, tmp_path, asked([8, 12]))
    path = tmp_path / "runs" / first.runs[0] / "record.json"
    path.write_text(path.read_text().replace(str(first.trainings[0].code), "0123456789ab"))
    again = carry_out(pool, tmp_path, asked([8, 12]))
    assert "0123456789ab" in {one.code for one in again.trainings}
    assert any(note.startswith("1 of 2 trainings were made with another state") for note in again.notes)
    assert not any("another state" in note for note in first.notes)


def test_a_study_that_can_not_go_on_is_not_left_running(pool: Pool, tmp_path: Path) -> None:
    class Fails(Watching):
        def begins(self, training: Begins) -> Callable[[Path], None]:
            raise ScalelabError("no space left on device")

    with pytest.raises(ScalelabError, match="no space left"):
        carry_out(pool, tmp_path, asked([8]), watching=Fails())
    held = keeping.read(tmp_path)
    assert held is not None
    assert held.status == "interrupted"


def test_an_interrupted_study_goes_on(pool: Pool, tmp_path: Path) -> None:
    class Stops(Watching):
        def ended(self, training: Ended) -> None:
            if training.begun.number == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(pool, tmp_path, asked([8, 12, 24]), watching=Stops())
    held = keeping.read(tmp_path)
    assert held is not None
    assert held.status == "interrupted"
    before = folders(tmp_path)
    heard = Heard()
    record = carry_out(pool, tmp_path, asked([8, 12, 24]), watching=heard)
    assert record.status == "completed"
    assert len(heard.began) == 1
    assert before < folders(tmp_path)
    assert processes_of(str(tmp_path / "runs")) == []


def test_without_its_study_json_the_trainings_are_found(pool: Pool, tmp_path: Path) -> None:
    carry_out(pool, tmp_path, asked([8, 12]))
    before = folders(tmp_path)
    (tmp_path / "study.json").write_text('{"kind": "stu')
    with pytest.raises(ScalelabError, match=r"study\.json: cannot be read as a study.*remove it"):
        carry_out(pool, tmp_path, asked([8, 12]))
    (tmp_path / "study.json").unlink()
    assert carry_out(pool, tmp_path, asked([8, 12])).status == "completed"
    assert folders(tmp_path) == before


def test_the_same_training_of_two_points_is_made_once(pool: Pool, tmp_path: Path) -> None:
    def doubled(question: Asked) -> list[Any]:
        (one,) = STUDY.points(question)
        return [one, replace(one, label="the same")]

    record = carry_out(pool, tmp_path, asked([8]), study=replace(STUDY, points=doubled))
    assert record.rows[0].runs == record.rows[1].runs
    assert len(folders(tmp_path)) == 1


def test_what_cannot_run_is_refused_before_the_start_and_shown(pool: Pool, tmp_path: Path) -> None:
    planned = planning.plan(pool, STUDY, asked([8, 97, 12]), 2, tmp_path)
    plan = planning.described(planned)
    assert (plan.finished, plan.to_train, plan.refused) == (0, 4, 1)
    assert [(one.label, one.status) for one in plan.trainings[4:]] == [("batch 97", "refused")]
    assert "97 is more than the 96 training samples" in (plan.trainings[4].reason or "")
    record = running.carry_out(pool, planned, Watching())
    assert record.status == "completed"
    assert [row.status for row in record.rows] == ["completed", "refused", "completed"]
    assert record.rows[1].figures["speedup"].reason == record.rows[1].reason
    assert "1 of 3 points could not run here: the table says why" in record.notes


def test_nothing_that_can_run_is_an_error_and_leaves_nothing(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="97 is more than the 96"):
        planning.plan(pool, STUDY, asked([97]), 1, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_all_failed_is_said(pool: Pool, tmp_path: Path) -> None:
    record = carry_out(pool, tmp_path, asked([8], lr=1e38))
    assert record.status == "failed"
    assert record.answer == "No training was completed, so nothing can be answered."
    assert record.trainings[0].reason


def test_what_another_folder_holds_is_refused(pool: Pool, tmp_path: Path) -> None:
    carry_out(pool, tmp_path / "s", asked([8]))
    with pytest.raises(ScalelabError, match=r"holds another study \(batch is 8 there, 8 12 here\)"):
        keeping.refuse_another(tmp_path / "s", STUDY, asked([8, 12]))
    with pytest.raises(
        ScalelabError, match=r"seed is 0 there, 3 here; lr is 0.05 there, 0.1 here; steps is 4 there, 9 here and 1 more"
    ):
        keeping.refuse_another(tmp_path / "s", STUDY, asked([8, 12], lr=0.1, seed=3, steps=9))
    with pytest.raises(ScalelabError, match=r"holds another study \(toy\)"):
        keeping.refuse_another(tmp_path / "s", replace(STUDY, name="other"), asked([8]))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ScalelabError, match=r"something else than a study \(mine.txt\)"):
        keeping.refuse_another(tmp_path / "notes", STUDY, asked([8]))
    assert keeping.refuse_another(tmp_path / "s", STUDY, asked([8], timeout=7.0, out="elsewhere")) is not None


def test_one_process_at_a_time(pool: Pool, tmp_path: Path) -> None:
    planned = planning.plan(pool, STUDY, asked([8]), 1, tmp_path)
    with records.held(tmp_path), pytest.raises(ScalelabError, match="another process is working on this study now"):
        running.carry_out(pool, planned, Watching())
    with records.held(tmp_path), pytest.raises(ScalelabError, match="another process"):
        planning.plan(pool, STUDY, asked([8]), 1, tmp_path)
    assert running.carry_out(pool, planned, Watching()).status == "completed"


def test_the_record_is_what_the_file_says(pool: Pool, tmp_path: Path) -> None:
    record = carry_out(pool, tmp_path, asked([8]))
    assert msgspec.json.decode((tmp_path / "study.json").read_bytes(), type=StudyRecord) == record
    assert json.loads((tmp_path / "study.json").read_text())["ceilings"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_other_code_prepares_anew_only_where_something_was_refused(pool: Pool, tmp_path: Path) -> None:
    for name, batches, known in (("all", [8], True), ("some", [8, 97], False)):
        folder = tmp_path / name
        carry_out(pool, folder, asked(batches))
        plan = folder / "plan.json"
        plan.write_text(plan.read_text().replace('{"code":"', '{"code":"other'))
        points = planning.plan(pool, STUDY, asked(batches), 1, folder).cases
        assert (planning.recall(folder, [case.point for case in points]) is not None) is known
