"""The report as Markdown, for an issue, a pull request or a README."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scalelab.report import about
from scalelab.report.answer import sentence
from scalelab.report.chart import Runs
from scalelab.report.columns import COLUMNS, Notes, Shown, cells
from scalelab.report.subject import Subject
from scalelab.report.table import Row, rows


def render(subject: Subject) -> str:
    """Question, answer, comparison with its notes, failures, method, environment, commands; there are no figures."""
    records = subject.records
    table = rows(records, subject.verify)
    runs = list(zip(table, records, strict=True))
    notes = Notes()
    parts = [
        f"# {escape(subject.title)}",
        f"**Asked:** {escape(subject.question)}",
        f"**Answer:** {escape(subject.answer or sentence(records))}",
        "## Comparison",
    ]
    tasks = list(dict.fromkeys(row.task for row in table))
    for task in tasks:
        parts += [f"### {escape(task)}"] if len(tasks) > 1 else []
        parts.append(_table([row for row in table if row.task == task], notes))
    parts.append("\n".join(f"{place}. {escape(note)}" for place, note in enumerate(notes.texts, 1)))
    parts.append(_failures(runs))
    parts.append(_named("Notes", about.remarks(runs)))
    parts.append(_named("How each number was measured", about.methods(records, subject.verify)))
    places = about.environments(runs)
    for one in places:
        parts.append(
            _named(
                "Environment" + (f" of {one['runs']}" if len(places) > 1 else ""),
                [(name, [value]) for name, value in one["facts"]],
            )
        )
    parts.append("## Commands\n\n" + fenced("\n".join(about.commands(records))) if about.commands(records) else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(group: Sequence[Row], notes: Notes) -> str:
    head = ["run", "status", *(f"{column.name} ({column.unit})" for column in COLUMNS)]
    lines = [head, ["---", "---", *("---:" for _ in COLUMNS)]]
    lines += [[escape(row.name), row.status, *(_cell(shown) for shown in cells(row, group, notes))] for row in group]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(shown: Shown) -> str:
    return shown.main + (f" ({shown.sub})" if shown.sub else "") + (f" [{shown.note}]" if shown.note else "")


def _failures(runs: Runs) -> str:
    found = about.failures(runs)
    parts = ["## Runs that did not complete"] if found else []
    for one in found:
        parts.append(f"**{escape(one['label'])}** ({one['status']}, {escape(one['where'])}): {escape(one['error'])}")
        parts += [fenced(one["traceback"])] if one["traceback"] else []
    return "\n\n".join(parts)


def _named(heading: str, named: Sequence[tuple[str, Sequence[str]]]) -> str:
    lines = [f"- **{escape(name)}**: {' '.join(escape(line) for line in lines)}" for name, lines in named]
    return f"## {escape(heading)}\n\n" + "\n".join(lines) if lines else ""


def escape(text: str) -> str:
    """``text`` on one line, with what Markdown or HTML would read as markup escaped."""
    # An underscore within a word is not markup, and names are full of them.
    return re.sub(r"([\\`*\[\]<>|#~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def fenced(text: str) -> str:
    """``text`` as a code block, with a fence longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
