"""A study as a page: the question, the answer, its tables and figures, then how it was measured."""

from __future__ import annotations

from pathlib import Path

from scalelab.record import text
from scalelab.record.study import StudyRecord
from scalelab.report import write as write_runs

SHOW: dict[str, text.Show] = {
    "rate": text.rate, "seconds": text.seconds, "percent": text.percent, "times": text.times, "size": text.size,
    "number": text.number, "count": lambda value: f"{value:,.0f}", "bandwidth": lambda value: f"{text.size(value)}/s",
}  # fmt: skip


def write(folder: Path, record: StudyRecord) -> Path:
    """The page of a study, as ``report.html`` in its folder."""
    folders = [folder / "runs" / name for name in record.runs]
    return write_runs(
        folders, folder / "report.html", "html", f"scalelab study {record.study}", record.question, record.answer or None
    )
