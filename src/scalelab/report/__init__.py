"""Recorded runs as something to read and to send: one page, Markdown, or a table. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from scalelab.errors import ScalelabError, unknown
from scalelab.record import text
from scalelab.record.folder import load, read_steps, write_atomic
from scalelab.record.samples import read
from scalelab.record.schema import TrainRecord, VerifyRecord
from scalelab.report import markdown, page, table
from scalelab.report.alike import task_names
from scalelab.report.subject import Subject

Format = Literal["html", "md", "csv"]
FORMATS: dict[str, Callable[[Subject], str]] = {"html": page.render, "md": markdown.render, "csv": table.csv}
DRAWN = "html"
"""the format with figures, which are of steps and of samples"""


def write(
    folders: Sequence[Path],
    output: Path,
    format: Format | str = "html",
    title: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    verify: VerifyRecord | None = None,
) -> Path:
    """Report on the runs in ``folders``, whatever their status, into ``output``, atomically; returns ``output``.

    Raises ScalelabError for an unknown format, no folder, one without a record, or a missing output folder.
    """
    if format not in FORMATS:
        raise unknown("report format", format, FORMATS)
    if not output.parent.is_dir():
        raise ScalelabError(f"{output}: the folder {str(output.parent)!r} does not exist; make it, or choose another -o")
    records = [load(folder) for folder in folders]
    runs = list(zip(records, folders, strict=True)) if format == DRAWN else []
    subject = Subject(
        records, title or default_title(records), question or default_question(records), answer, verify,
        steps={record.run: list(read_steps(folder)) for record, folder in runs},
        samples={record.run: read(folder) for record, folder in runs},
    )  # fmt: skip
    write_atomic(output, FORMATS[format](subject))
    return output


def default_title(records: Sequence[TrainRecord]) -> str:
    """``basic_cnn on digits: six runs compared``, or the run's name."""
    tasks = list(dict.fromkeys(task_names(records)))
    if len(records) == 1:
        return f"{records[0].name}: {tasks[0]}"
    if len(tasks) == 1:
        return f"{tasks[0]}: {text.count(len(records))} runs compared"
    return f"{text.count(len(records)).capitalize()} runs of {text.count(len(tasks))} tasks"


def default_question(records: Sequence[TrainRecord]) -> str:
    """What a reader of these runs most likely asks."""
    strategies = list(dict.fromkeys(record.strategy for record in records))
    if len(records) == 1:
        return "How fast did it train, where did the time go, and what did it learn?"
    if len(strategies) == 1:
        return f"How do these {len(records)} runs of {strategies[0]} differ in speed, memory and accuracy?"
    return "Which way of spreading this training is the fastest, what does it cost in memory, and does it learn the same?"
