"""The report as one HTML file that needs nothing else: no network, no server, no font, no style from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scalelab.errors import ScalelabError
from scalelab.record import text
from scalelab.report import about
from scalelab.report.answer import sentence
from scalelab.report.cards import cards
from scalelab.report.chart import Chart, Runs, colour
from scalelab.report.columns import COLUMNS, Notes, cells, describe
from scalelab.report.figures import charts
from scalelab.report.frame import LIMIT, fill
from scalelab.report.subject import Subject
from scalelab.report.table import Row, rows

MOST_CLASSES = 24
"""beyond, a confusion matrix is no longer readable and outgrows the page"""


def render(subject: Subject) -> str:
    """The page, at most 2 MB of UTF-8: curves get fewer points before it grows. Raises ScalelabError for more runs than fit."""
    runs = list(zip(rows(subject.records, subject.verify), subject.records, strict=True))
    content = _content(runs, subject)
    for points in (300, 120, 40):
        page = _page(content, charts(runs, subject.steps, subject.samples, points), _confusions(runs))
        if len(page.encode()) <= LIMIT:
            return page
    raise ScalelabError(f"{len(runs)} runs do not fit into a page of 2 MB; name fewer, or use --format md or csv")


def _content(runs: Runs, subject: Subject) -> dict[str, Any]:
    table, records, verify = [row for row, _ in runs], subject.records, subject.verify
    notes = Notes()
    return {
        "title": subject.title,
        "question": subject.question,
        "answer": subject.answer or sentence(records),
        "facts": _facts(runs),
        "cards": cards(table, verify),
        "columns": COLUMNS,
        "groups": _groups(table, notes),
        "notes": notes.texts,
        "failures": about.failures(runs),
        "remarks": about.remarks(runs),
        "methods": about.methods(records, verify),
        "environments": about.environments(runs),
        "commands": about.commands(records),
        "specs": about.specs(runs),
        "differing": about.differing(records),
        "labels": [{"label": row.label, "colour": colour(place)} for place, row in enumerate(table)],
    }


def _page(content: dict[str, Any], drawn: Sequence[Chart], confusions: list[dict[str, Any]]) -> str:
    told = {**content, "confusions": confusions, "sections": _sections(content, drawn)}
    return fill("page.html.j2", told, drawn, confusions=confusions)


def _sections(content: dict[str, Any], drawn: Sequence[Chart]) -> list[tuple[str, str]]:
    found = [("comparison", "Comparison")]
    found += [("figures", "Figures")] if drawn else []
    found += [("notes", "Failures and notes")] if content["failures"] or content["remarks"] else []
    return [*found, ("method", "Method"), ("environment", "Environment"), ("specs", "Specs")]


def _groups(table: Sequence[Row], notes: Notes) -> list[dict[str, Any]]:
    """The rows by task, each with its cells: what is not alike does not share a table."""
    groups = []
    for task in dict.fromkeys(row.task for row in table):
        members = [(place, row) for place, row in enumerate(table) if row.task == task]
        alike = [row for _, row in members]
        lines = [_line(place, row, alike, notes) for place, row in members]
        groups.append({"name": task, "lines": lines})
    return groups


def _line(place: int, row: Row, alike: Sequence[Row], notes: Notes) -> dict[str, Any]:
    return {
        "label": row.name,
        "sub": describe(row),
        "status": row.status,
        "oversubscribed": row.oversubscribed,
        "is_base": row.is_base and len(alike) > 1,
        "colour": colour(place),
        "cells": cells(row, alike, notes),
    }


def _facts(runs: Runs) -> str:
    """``6 runs · basic_cnn on digits · 2 January 2026``."""
    tasks = list(dict.fromkeys(row.task for row, _ in runs))
    started = sorted(record.attempts[0].started[:10] for _, record in runs if record.attempts)
    parts = [f"{len(runs)} run{'s' if len(runs) != 1 else ''}", text.listing(tasks) if len(tasks) < 4 else f"{len(tasks)} tasks"]
    if started:
        parts.append(started[0] if started[0] == started[-1] else f"{started[0]} to {started[-1]}")
    return " · ".join(parts)


def _confusions(runs: Runs) -> list[dict[str, Any]]:
    found = []
    for row, record in runs:
        counts = next((epoch.confusion for epoch in reversed(record.epochs) if epoch.confusion), [])
        if counts and len(counts) <= MOST_CLASSES:
            classes = (
                record.data.classes
                if record.data and len(record.data.classes) == len(counts)
                else [str(n) for n in range(len(counts))]
            )
            found.append({"label": row.label, "classes": classes, "counts": counts})
    return found
