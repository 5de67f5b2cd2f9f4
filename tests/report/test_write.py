"""Reports of run folders: every status, every format, atomically."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import pytest

from scalelab import report
from scalelab.errors import ScalelabError
from scalelab.record import folder as folders
from tests.report import samples


def keep(out: Path, record, steps) -> Path:
    """The run's folder as a worker leaves it."""
    made = folders.create(out, record.name)
    folders.save(made, record)
    encoder = msgspec.json.Encoder()
    (made / "steps.jsonl").write_bytes(b"".join(encoder.encode(step) + b"\n" for step in steps))
    return made


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    records, steps = samples.demo()
    return [keep(tmp_path / "runs", record, steps[record.run]) for record in records]


@pytest.mark.parametrize("format", list(report.FORMATS))
def test_every_format_tells_of_every_run(runs: list[Path], tmp_path: Path, format: str) -> None:
    output = report.write(runs, tmp_path / f"report.{format}", format)
    content = output.read_text(encoding="utf-8")
    for name in ("single (all cores)", "ddp", "zero1", "zero2", "zero3"):
        assert name in content
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("format", list(report.FORMATS))
@pytest.mark.parametrize("status", ["running", "failed", "interrupted", "lost"])
def test_a_run_that_did_not_complete_is_shown_with_its_status(runs: list[Path], tmp_path: Path, status: str, format: str) -> None:
    record, steps = samples.failed()
    record = msgspec.structs.replace(record, status=status, failure=record.failure if status == "failed" else None)
    died = keep(tmp_path / "runs", record, steps)
    content = report.write([*runs, died], tmp_path / "out", format).read_text(encoding="utf-8")
    assert status in content
    assert ("out of memory" in content) == (status == "failed")


def test_a_run_that_died_before_its_first_step_is_shown(tmp_path: Path) -> None:
    record, _ = samples.failed()
    nothing = msgspec.structs.replace(record, epochs=[], losses=[], accuracy=None, steps=0, model=None, data=None, attempts=[])
    content = report.write([keep(tmp_path, nothing, [])], tmp_path / "out.html").read_text(encoding="utf-8")
    assert "out of memory" in content


def test_a_step_still_being_written_is_left_out(tmp_path: Path) -> None:
    record, steps = samples.record("ddp")
    made = keep(tmp_path, record, steps)
    with (made / "steps.jsonl").open("ab") as lines:
        lines.write(b'{"step": 111, "ep')
    report.write([made], tmp_path / "out.html")


def test_title_question_and_answer_can_be_given(runs: list[Path], tmp_path: Path) -> None:
    content = report.write(runs, tmp_path / "out.html", title="Mine", question="Why?", answer="Because.").read_text(
        encoding="utf-8"
    )
    assert '<h1 id="title">Mine</h1>' in content
    assert "Why?" in content
    assert "Because." in content


def test_a_later_report_replaces_the_earlier(runs: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "report.csv"
    report.write(runs, output, "csv")
    report.write(runs[:1], output, "csv")
    assert len(list(csv.reader(output.open()))) == 2


def test_an_unknown_format_is_refused_with_the_valid_ones(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="html, md, csv"):
        report.write(runs, tmp_path / "out.pdf", "pdf")


def test_a_missing_output_folder_is_told(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="does not exist"):
        report.write(runs, tmp_path / "nowhere" / "out.html")


def test_a_folder_without_a_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="holds no record"):
        report.write([tmp_path], tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="no run"):
        report.write([], tmp_path / "out.html")
