"""A study as a page: the question, the answer, its figures and tables, then its trainings and how all was measured."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scalelab.errors import ScalelabError
from scalelab.record import text
from scalelab.record.folder import load_all, write_atomic
from scalelab.record.schema import Figure, TrainRecord
from scalelab.record.study import Card, Row, StudyRecord, Table, Trained
from scalelab.report import about, sheet
from scalelab.report.chart import Chart, Runs
from scalelab.report.columns import Notes
from scalelab.report.frame import LIMIT, fill
from scalelab.report.plots import chart
from scalelab.report.study_table import lay
from scalelab.report.table import rows

REPORT, RUNS = "report.html", "runs"
SPECS = 60
"""trainings whose specs the page holds; beyond, they are in the folder only"""


def write(folder: Path, record: StudyRecord, output: Path | None = None) -> Path:
    """The page of the study in ``folder``, as its ``report.html`` or ``output``, atomically; its path. Raises RunError on a full disk."""
    path = output or folder / REPORT
    found, _ = load_all([place for name in record.runs if (place := folder / RUNS / name).is_dir()], named=False)
    write_atomic(path, render(record, list(found.values()), str(folder)))
    return path


def render(record: StudyRecord, records: Sequence[TrainRecord], folder: str) -> str:
    """The page, at most 2 MB. ``records`` are those of its trainings, for methods, environment and specs."""
    runs = list(zip(rows(records), records, strict=True))
    drawn = [made for plot in record.plots if (made := chart(plot)) is not None]
    for most in (SPECS, 12, 1):
        page = fill("study.html.j2", content(record, runs, drawn, folder, most), drawn)
        if len(page.encode()) <= LIMIT:
            return page
    raise ScalelabError(f"study {record.study}: its figures do not fit into a page of 2 MB; try fewer values")


def content(record: StudyRecord, runs: Runs, drawn: Sequence[Chart], folder: str, most: int) -> dict[str, Any]:
    """What the template shows."""
    notes = Notes()
    tables = [lay(table, notes) for table in record.tables]
    records = [one for _, one in runs]
    told = {
        "title": title(record, records), "question": record.question, "answer": record.answer, "sentences": record.sentences,
        "facts": facts(record, records), "cards": record.cards or cards(record.tables), "tables": tables, "notes": notes.texts,
        "trainings": [trained(one) for one in record.trainings], "remarks": record.notes, "status": record.status,
        "planned": sum(one.status != "refused" for one in record.trainings), "repeats": record.repeats,
        "again": shlex.join(record.command), "folder": folder, "failures": about.failures(runs),
        "methods": methods(record, records), "environments": about.environments(runs), "specs": about.specs(runs)[:most],
        "left_out": max(0, len(records) - most), "time": times(record),
    }  # fmt: skip
    return told | {"sections": sections(told, drawn)}


KINDS = 3
"""of hosts, that a page's first lines name"""


def title(record: StudyRecord, records: Sequence[TrainRecord]) -> str:
    """``Weak scaling of basic_cnn on digits``: with the models and data where they are few."""
    name = record.study.replace("-", " ").capitalize()
    tasks = list(dict.fromkeys(f"{one.spec.get('model')} on {one.spec.get('data')}" for one in records))
    return f"{name}: {text.listing(tasks)}" if 0 < len(tasks) <= 2 else name


def facts(record: StudyRecord, records: Sequence[TrainRecord]) -> str:
    """``study weak-scaling · 12 trainings, 3 of each point · AMD EPYC, 2 cores · 2 January 2026``."""
    made = len(records)
    each = "one of each point" if record.repeats == 1 else f"{text.count(record.repeats)} of each point"
    hosts = {host.name: host for one in records for host in one.environment.hosts}
    kinds = list(dict.fromkeys(f"{host.processor}, {host.cores} cores" for host in hosts.values() if host.processor))
    several = f"{len(hosts)} hosts: " if len(hosts) > 1 else ""
    where = [several + "; ".join([*kinds[:KINDS], *[f"{len(kinds) - KINDS} more kinds"] * (len(kinds) > KINDS)])] if kinds else []
    quick = ["--quick: small and once"] if record.quick and record.repeats == 1 else ["--quick"] if record.quick else []
    parts = [f"study {record.study}", f"{made} training{'s' * (made != 1)}, {each}", *quick, *where, record.started[:10]]
    return " · ".join(part for part in parts if part)


BEST: tuple[tuple[str, str, str, text.Show], ...] = (
    ("speedup", "Best speedup", "", text.times),
    ("images_per_second", "Highest throughput", "images/s", text.rate),
    ("efficiency", "Best efficiency", "", text.percent),
    ("accuracy", "Best accuracy", "", text.percent),
    ("achieved", "Share of the ceiling", "at most", text.percent),
)
"""the first table's figures of which the largest makes a card, where the study itself has made none; a base, which is 1 by definition,
has no n of its own"""


def cards(tables: Sequence[Table]) -> list[Card]:
    """The largest of a few figures of the first table; at most four."""
    found = []
    for key, label, unit, show in BEST:
        known = [row for row in (tables[0].rows if tables else []) if _known(row, key) is not None and row.figures[key].n > 1]
        if known:
            best = max(known, key=lambda row: _known(row, key) or 0.0)
            interval = text.interval(best.figures[key], show)
            sub = f"{best.label}{f'; {interval}' if interval else ''}"
            found.append(Card(label=label, value=text.shown(best.figures[key], show), unit=unit, sub=sub))
    return found[:4]


def _known(row: Row, key: str) -> float | None:
    return row.figures[key].median if key in row.figures else None


def trained(one: Trained) -> dict[str, Any]:
    """A training as the list of them shows it."""
    return {
        "label": one.label, "repeat": one.repeat + 1, "status": one.status, "run": one.run or "", "reason": one.reason or "",
        "seconds": text.ABSENT if one.seconds is None else text.seconds(one.seconds),
        "expected": text.ABSENT if one.expected is None else text.about(one.expected),
    }  # fmt: skip


def times(record: StudyRecord) -> str:
    """How long it took, and what had been expected; empty where nothing was trained."""
    known = [one.seconds for one in record.trainings if one.seconds is not None]
    if not known:
        return ""
    said = f"The trainings took {text.seconds(sum(known))} together"
    both = [(one.seconds, one.expected) for one in record.trainings if one.seconds is not None and one.expected is not None]
    if not both:
        return f"{said}."
    took, guess = sum(seconds for seconds, _ in both), sum(expected for _, expected in both)
    return f"{said}; those of the last call took {text.seconds(took)}, and {text.about(guess)} had been estimated before."


SPREAD = {
    "median, interval": (
        "of several repeats of a point the repeat is the unit: their median; for two to seven repeats the interval is Student's on "
        "logarithms (Student 1908), from eight on the bootstrap of the median (Efron 1979). Of one training: the median and the bootstrap "
        "of its blocks of 10 steps (of fewer than eight again Student's), which knows nothing of another repeat. Always 95 %."
    ),
    "ratio": (
        "of two points the ratio is taken repeat by repeat, because the repeats ran interleaved: what drifts, drifts in both. "
        "Of one training each, the two intervals join on a logarithmic scale (Zou & Donner 2008). A difference is claimed only where the "
        "interval excludes 1."
    ),
    "achieved share": (
        "images/s times the FLOPs of training one image, over the workers times what one of so many workers could compute at most when "
        "it was measured here, before the first training."
    ),
}


def methods(record: StudyRecord, records: Sequence[TrainRecord]) -> about.Named:
    """What the words of a study mean, then what the trainings' records say was done."""
    own = [(name, [meaning]) for name, meaning in SPREAD.items()]
    return own + [(name, lines) for name, lines in about.methods(records, None) if name != "median, ±, interval"]


def sections(told: dict[str, Any], drawn: Sequence[Chart]) -> list[tuple[str, str]]:
    """What the page's head leads to."""
    found = [("figures", "Figures")] if drawn else []
    found += [("tables", "Tables")] if told["tables"] else []
    return [*found, ("trainings", "Trainings"), ("method", "Method"), ("environment", "Environment"), ("specs", "Specs")]


def csv(record: StudyRecord) -> str:
    """The rows of all tables, one below the other: their table, what was varied, every figure.

    A figure is the columns ``NAME``, ``NAME_low``, ``NAME_high``, ``NAME_n``, ``NAME_unit``, ``NAME_reason``.
    """
    rows = [(table.id, row) for table in record.tables for row in table.rows]
    factors = list(dict.fromkeys(key for _, row in rows for key in row.factors))
    names = list(dict.fromkeys(key for _, row in rows for key in row.figures))
    none = Figure(unit="", reason="not in this table")
    header = ["table", "label", *factors, "status", "reason", "marks", "runs", *sheet.heading(names)]
    body = [
        [table, row.label, *(row.factors.get(key) for key in factors), row.status, row.reason, "; ".join(row.marks), " ".join(row.runs),
         *sheet.values(row.figures.get(name, none) for name in names)]
        for table, row in rows
    ]  # fmt: skip
    return sheet.text(header, body)
