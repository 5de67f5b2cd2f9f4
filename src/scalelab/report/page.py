"""The report as one HTML file that needs nothing else: no network, no server, no font, no style from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from scalelab import __version__
from scalelab.errors import ScalelabError
from scalelab.record import text
from scalelab.record.schema import Step, TrainRecord, VerifyRecord
from scalelab.report import about
from scalelab.report.answer import sentence
from scalelab.report.cards import cards
from scalelab.report.chart import Chart, Runs, colour
from scalelab.report.columns import COLUMNS, Notes, cells, describe
from scalelab.report.figures import charts
from scalelab.report.resources import Samples
from scalelab.report.table import Row, rows

HERE = Path(__file__).parent
LIMIT = 2_000_000
MOST_CLASSES = 24
"""beyond, a confusion matrix is no longer readable and outgrows the page"""


def render(
    records: Sequence[TrainRecord],
    steps: Mapping[str, Sequence[Step]],
    title: str,
    question: str,
    answer: str | None = None,
    verify: VerifyRecord | None = None,
    samples: Samples | None = None,
) -> str:
    """The page, at most 2 MB of UTF-8: curves get fewer points before it grows. ``steps`` and ``samples`` are by ``record.run``.

    Raises ScalelabError for no record, or for more runs than fit.
    """
    if not records:
        raise ScalelabError("there is no run to report on; `scalelab runs list` shows them")
    table = rows(records, verify)
    runs = list(zip(table, records, strict=True))
    content = _content(runs, answer or sentence(records), title, question, verify)
    for points in (300, 120, 40):
        page = _page(content, charts(runs, steps, samples or {}, points), _confusions(runs))
        if len(page.encode()) <= LIMIT:
            return page
    raise ScalelabError(f"{len(records)} runs do not fit into a page of 2 MB; name fewer, or use --format md or csv")


def _content(runs: Runs, answer: str, title: str, question: str, verify: VerifyRecord | None) -> dict[str, Any]:
    table = [row for row, _ in runs]
    records = [record for _, record in runs]
    notes = Notes()
    return {
        "title": title,
        "question": question,
        "answer": answer,
        "version": __version__,
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
    plotly, script, css = asset("plotly-basic.min.js"), asset("page.js"), asset("page.css")
    data = embed({"charts": [asdict(chart) for chart in drawn], "confusions": confusions})
    return _template().render(
        **content,
        charts=drawn,
        confusions=confusions,
        sections=_sections(content, drawn),
        policy=policy([plotly, script]),
        plotly=Markup(plotly),  # noqa: S704 - our own files, not a user's text
        script=Markup(script),  # noqa: S704
        css=Markup(css),  # noqa: S704
        data=data,
    )


def _template() -> Template:
    # StrictUndefined: a name that the template expects and nobody gives is an error here, not a hole in the page.
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["together"] = together
    return environment.get_template("page.html.j2")


def together(line: str) -> str:
    """``line`` with hard spaces where a line must not break: ``ddp × 2``, ``81 %``."""
    return line.replace(" × ", "\u00a0×\u00a0").replace(" %", "\u00a0%")


@cache
def asset(name: str) -> str:
    """The text of a file in ``assets/``."""
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy that lets exactly ``scripts`` run, and nothing be loaded or sent."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    # Styles are inline because the figures' library sets them; data: and blob: are the images it saves on request.
    rest = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {hashes}; {rest}"


def embed(value: Any) -> Markup:
    """``value`` as JSON that is safe inside ``<script type="application/json">``; what is not finite becomes null."""
    body = json.dumps(_finite(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        body = body.replace(character, f"\\u{ord(character):04x}")
    return Markup(body)  # noqa: S704 - every character that HTML could read is escaped above


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


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
