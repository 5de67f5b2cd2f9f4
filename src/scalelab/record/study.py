"""What a study leaves behind: its plan, its trainings, and its findings as rows, figures and sentences. ``study.json``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from scalelab.record.schema import Ceiling, Figure

Factor = str | int | float
Show = Literal["rate", "seconds", "percent", "points", "times", "size", "number", "count", "bandwidth", "text"]
"""how a value is written: images/s, a duration, a share as per cent, a difference of shares in points (without that word), a ratio, bytes,
three digits, a whole number, bytes/s, as it is"""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a table: ``key`` of a row's factors or figures, its heading, what stands below it, and how values are written."""

    key: str
    title: str
    sub: str = ""
    show: Show = "number"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One point of a study (all its repeats, or seeds): what was varied, and every figure, present or absent with its reason."""

    label: str
    factors: dict[str, Factor] = {}
    figures: dict[str, Figure] = {}
    status: Literal["completed", "partly", "failed", "refused"] = "completed"
    """partly: some repeats failed; refused: it could not run here, and ``reason`` says why"""
    reason: str | None = None
    marks: list[str] = []
    """what to know before trusting a figure of this row: an efficiency above 1, an impossible bandwidth, too many workers for the cores"""
    runs: list[str] = []
    """folder names of its trainings under the study's ``runs/``"""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows under a heading. The first table of a study is its ``rows``."""

    id: str
    title: str
    caption: str = ""
    columns: list[Column]
    rows: list[Row]


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """``ticks``: where only these values were tried, as on a logarithmic axis of batch sizes; ``show``: how the values are written."""

    title: str
    log: bool = False
    ticks: list[float] = []
    show: Show = "number"


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One line, or row of bars or points, of a plot. ``x`` of bars may be names; ``low`` and ``high`` are the ends of 95 % intervals.

    spans: a bar from ``low`` to ``high`` on the lane ``x``, with ``text`` in it: a timeline.
    """

    name: str
    x: list[Factor]
    y: list[float | None]
    low: list[float | None] = []
    high: list[float | None] = []
    style: Literal["line", "points", "bars", "stacked", "ideal", "spans"] = "line"
    """ideal: a thin dashed line, such as linear speedup, drawn behind (of one ``x`` a mark); stacked: what is negative goes below zero"""
    text: list[str] = []


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, drawn by whoever shows it; ``caption`` says what one should see in it."""

    id: str
    title: str
    caption: str
    x: Axis
    y: Axis
    series: list[Series]
    wide: bool = False


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A figure to be read from across the room: what it is of, its value and unit as written, and what stands below it."""

    label: str
    value: str
    unit: str = ""
    sub: str = ""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What the trainings show. Sentences are made from the figures and their intervals, never fixed."""

    answer: str
    sentences: list[str] = []
    tables: list[Table]
    plots: list[Plot] = []
    notes: list[str] = []
    cards: list[Card] = []
    """at most four, under the answer; of none the page takes the best figures of the first table"""


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """One planned training and what became of it. ``run`` is its folder's name; ``code`` what it was made with."""

    label: str
    repeat: int
    factors: dict[str, Factor] = {}
    status: Literal["planned", "completed", "failed", "interrupted", "lost", "running", "refused"] = "planned"
    run: str | None = None
    reason: str | None = None
    seconds: float | None = None
    """from its start to its end"""
    expected: float | None = None
    """the estimate of ``seconds`` before the study began, or went on; None where it was finished already, or nothing could be said"""
    code: str | None = None


class StudyPlan(msgspec.Struct, kw_only=True):
    """What ``study --dry-run --json`` prints: every training, what is finished, what can't run and why, how long the rest may take."""

    kind: Literal["study-plan"] = "study-plan"
    format: int = 1
    study: str
    question: str
    folder: str
    repeats: int
    trainings: list[Trained]
    finished: int
    to_train: int
    refused: int
    """points, not trainings"""
    expected_seconds: float | None = None
    """an estimate for all that is to be trained; None where nothing could be said, and ``estimate`` has the reason"""
    estimate: str = ""
    """how the estimate was made"""


class StudyRecord(msgspec.Struct, kw_only=True):
    """study.json, and what ``study --json`` prints."""

    kind: Literal["study"] = "study"
    format: int = 1
    study: str
    question: str
    status: Literal["running", "completed", "partly", "failed", "interrupted", "submitted"] = "running"
    """submitted: its trainings are jobs of Slurm, and the last of them makes the report"""
    answer: str = ""
    sentences: list[str] = []
    rows: list[Row] = []
    tables: list[Table] = []
    plots: list[Plot] = []
    notes: list[str] = []
    asked: dict[str, Any] = {}
    """what makes it this study and no other: the spec, what is varied, the options"""
    quick: bool = False
    repeats: int = 1
    trainings: list[Trained] = []
    cards: list[Card] = []
    runs: list[str] = []
    expected_seconds: float | None = None
    """the estimate, made before the first training, for all that was to be trained then"""
    seconds: float | None = None
    """that this call took for it"""
    ceilings: dict[str, Ceiling] = {}
    """what hosts can compute at most, measured before the first training, by workers, threads, device, precision and host"""
    report: str | None = None
    command: list[str] = []
    started: str = ""
    ended: str | None = None
