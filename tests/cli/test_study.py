"""``scalelab study``: what it lists, teaches, refuses, shows; and what a killed one leaves to the next. With a toy study."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from scalelab import studies
from scalelab.record.study import StudyRecord
from scalelab.studies.running import keeping
from tests.ceilings import ceilings as ceilings
from tests.conftest import Command
from tests.docs.test_tools import faults, schema
from tests.studies.toy import STUDY
from tests.trainings import processes_of, start
from tests.waiting import SOON, until

pytestmark = pytest.mark.usefixtures("ceilings")


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(studies.STUDIES, "toy", "tests.studies.toy:STUDY")


def asked(command: Command, *words: object) -> dict[str, Any]:
    """What the plan of these flags says."""
    ended = command("study", "toy", *words, "--dry-run", "--json")
    assert ended.status == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_alone_it_lists_the_studies_and_their_questions(command: Command) -> None:
    for words, status in (((), 2), (("--help",), 0)):
        ended = command("study", *words)
        assert ended.status == status
        assert f"  toy             {STUDY.question}\n" in ended.out
        assert "example:" in ended.out
    assert command("study", "toi").error.startswith("unknown study 'toi' (did you mean 'toy'?)")
    assert "its name comes first, before --quick" in command("study", "--quick", "toy").error


def test_help_teaches_the_studys_own_flags_and_defaults(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command("study", "toy", "--help")
    said = " ".join(capfd.readouterr().out.split())
    for part in (
        STUDY.question, "scalelab study toy --batch 8 12", "largest batch that is allowed (default 1048576; with --quick 64)",
        "(default here: 8 12; with --quick 12)", "--tell, --no-tell", "(default here: 4)", "--repeats N", "(default here: 300.0)",
        "(default 2, with --quick 1)",
    ):  # fmt: skip
        assert part in said, part


def test_an_option_is_of_its_defaults_type(command: Command, tmp_path: Path) -> None:
    words = ["--most", "40", "--fractions", "1", "0.25", "--remedies", "none", "lars", "none", "--tell", "--other", "x"]
    ended = command("study", "toy", *words, "--batch", 8, "--repeats", 1, "--out", tmp_path / "s", "--json")
    options = json.loads(ended.out)["asked"]["options"]
    assert options == {
        "most": 40, "fractions": [1.0, 0.25], "remedies": ["none", "lars"], "tell": True, "other": "x", "cores": options["cores"],
        "quick": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--most", "many"], "--most 'many': expected a whole number"),
        (["--most", "8"], "--most 8: is less than the largest --batch"),
        (["--repeats", "0"], "--repeats 0: each point is trained once at least"),
        (["--repeats", "two"], "--repeats 'two': expected a whole number"),
        (["--batch", "8", "x"], "--batch 'x': expected"),
        (["--batch-per-worker", "8"], "--batch-per-worker 8: study toy varies --batch; say it with that"),
        (["--csv", "nowhere/x.csv"], "--csv 'nowhere/x.csv': the folder does not exist"),
        (["-o", "."], "-o '.': is a folder; name a file in it"),
        (["--name", "x"], "unknown flag '--name'"),
    ],
)
def test_what_cannot_be_asked_is_one_line(command: Command, tmp_path: Path, words: list[str], error: str) -> None:
    ended = command("study", "toy", *words, "--out", tmp_path / "s")
    assert ended.status == 2
    assert ended.error.startswith(error)
    assert not (tmp_path / "s").exists()


def test_what_is_done_before_the_plan_is_told(command: Command, tmp_path: Path) -> None:
    ended = command("study", "toy", "--batch", 97, "--out", tmp_path / "s")
    assert ended.status == 2
    assert ended.err.splitlines()[:2] == [STUDY.question, "checking 1 point"]
    assert ended.err.splitlines()[2].startswith("scalelab: --batch 97 is more than the 96 training samples")
    assert not (tmp_path / "s").exists()


def test_a_folder_that_can_not_be_made_is_told_before_the_plan(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = command("study", "toy", "--out", tmp_path / "file" / "s")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert ended.error == f"--out '{tmp_path}/file/s': cannot be made: {tmp_path}/file is not a folder; choose another"


def test_a_dry_run_tells_the_plan_and_starts_nothing(command: Command, tmp_path: Path) -> None:
    plan = asked(command, "--out", tmp_path / "s")
    assert faults(plan, schema("study-plan"), schema("study-plan")) == []
    assert (plan["to_train"], plan["finished"], plan["refused"], plan["repeats"]) == (4, 0, 0, 2)
    assert plan["expected_seconds"] == pytest.approx(sum(one["expected"] for one in plan["trainings"]))
    assert not (tmp_path / "s").exists()
    shown = command("study", "toy", "--batch", 8, 97, "--out", tmp_path / "s", "--dry-run").out
    assert "can't run here: batch 97: --batch 97 is more" in shown
    assert "2 trainings: about" in shown
    assert "communication is not in it" in shown


def test_each_question_has_a_folder_of_its_own(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, same, other = (asked(command, *words)["folder"] for words in ((), ("--repeats", 3), ("--lr", 0.1)))
    assert first == same != other
    assert first.startswith("studies/toy-")


def test_a_yaml_file_may_hold_several_values(command: Command, tmp_path: Path) -> None:
    (tmp_path / "asked.yaml").write_text("batch: [8, 12, 24]\nsteps: 3\n")
    plan = asked(command, "--spec", tmp_path / "asked.yaml", "--repeats", 1, "--out", tmp_path / "s")
    assert sorted(one["label"] for one in plan["trainings"]) == ["batch 12", "batch 24", "batch 8"]
    assert sorted(one["label"] for one in asked(command, "--quick", "--out", tmp_path / "s")["trainings"]) == ["batch 12"]


def test_it_shows_writes_and_exports(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "s"
    ended = command("study", "toy", "--csv", "rows.csv", "-o", "copy.html", "--out", folder)
    assert ended.status == 0, ended.err
    assert "4 trainings: about" in ended.err
    assert "[4/4] batch" in ended.err
    assert "4 trainings were completed." in ended.out
    assert f"report: {folder}/report.html" in ended.out
    assert (tmp_path / "copy.html").read_bytes() == (folder / "report.html").read_bytes()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [row["batch"] for row in rows] == ["8", "12"]
    assert float(rows[1]["images_per_second_low"]) <= float(rows[1]["images_per_second"])
    assert rows[1]["images_per_second_n"] == "2"
    assert rows[1]["images_per_second_unit"] == "images/s"
    again = command("study", "toy", "--out", folder, "--json")
    assert faults(json.loads(again.out), schema("study"), schema("study")) == []
    assert "4 trainings, all finished" in again.err
    listed = command("runs", "list", "--out", folder / "runs", "--json")
    assert len(json.loads(listed.out)) == 4
    page = command("report", folder, "-o", "again.html")
    assert page.status == 0, page.err
    assert STUDY.question in (tmp_path / "again.html").read_text()
    assert command("report", folder, "--title", "Mine").error == "--title 'Mine': a study's page has its own; leave it away"


@pytest.mark.parametrize("columns", [60, 160])
def test_its_tables_fit(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    from scalelab.cli.study import shown
    from scalelab.cli.terminal import Safe

    command("study", "toy", "--quick", "--out", tmp_path / "s", "--json")
    record = keeping.read(tmp_path / "s")
    assert record is not None
    written = io.StringIO()
    shown.show(Safe(file=written, width=columns, highlight=False), record)
    assert max(map(len, written.getvalue().split("report:")[0].splitlines())) <= columns


WORDS = ["--data", "synthetic", "--image-size", "8", "--classes", "4", "--train-limit", "96", "--test-limit", "30", "--no-evaluate",
         "--model-arg", "width=4", "--repeats", "1"]  # fmt: skip


@pytest.mark.usefixtures("_own_cache")
def test_a_killed_study_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    words = ["study", "weak-scaling", "--batch-per-worker", 8, *WORDS, "--steps", 6, "--out", folder]
    first = start(*words)
    until(lambda: done(folder) or first.poll() is not None)
    first.kill()
    first.communicate()
    until(lambda: processes_of(str(folder / "runs")) == [], "the end of all processes", SOON)
    before = {path.parent.name for path in folder.glob("runs/*/record.json") if '"status": "completed"' in path.read_text()}
    second = start(*words, "--json")
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    record = json.loads(out)
    assert before
    assert before <= set(record["runs"])
    assert f"{len(before)} {'is' if len(before) == 1 else 'are'} finished" in err


def done(folder: Path) -> bool:
    record = keeping.read(folder)
    return record is not None and any(one.status == "completed" for one in record.trainings)


@pytest.mark.usefixtures("_own_cache")
def test_ctrl_c_says_how_it_goes_on_and_a_stalled_worker_ends_alone(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    words = ["study", "weak-scaling", "--batch-per-worker", 8, *WORDS, "--steps", 3000000, "--timeout", 5, "--out", folder]
    process = start(*words)
    try:
        until(lambda: list(folder.glob("runs/*/steps.jsonl")) or process.poll() is not None)
        for rank in processes_of(str(next(folder.glob("runs/*/logs")))):
            os.kill(rank, signal.SIGSTOP)
        until(lambda: any(one.status == "failed" for one in read(folder).trainings), "the silence")
        until(lambda: len(list(folder.glob("runs/*/steps.jsonl"))) == 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 130
    assert "failed: silent for 5 seconds (--timeout)" in err
    assert err.splitlines()[-2].endswith("trainings are finished and kept; the same command goes on with the rest")
    assert err.splitlines()[-1] == "scalelab: interrupted"
    assert read(folder).status == "interrupted"
    until(lambda: not processes_of(str(folder)), "the end of all processes", SOON)


def read(folder: Path) -> StudyRecord:
    found = keeping.read(folder)
    assert found is not None
    return found
