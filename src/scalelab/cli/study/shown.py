"""A study in the terminal: its plan before, its tables and its answer after."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from scalelab.cli.study.tables import grids
from scalelab.record import text
from scalelab.record.study import StudyPlan, StudyRecord
from scalelab.report.columns import Notes

FIRST_REFUSED = 8
"""refused points that are listed before the start; --dry-run lists all"""


def tell_plan(err: Console, plan: StudyPlan) -> None:
    """What is about to happen, before anything starts."""
    refused = [one for one in plan.trainings if one.status == "refused"]
    for one in refused[:FIRST_REFUSED]:
        err.print(f"can't run here: {one.label}: {one.reason}", markup=False, style="yellow")
    if len(refused) > FIRST_REFUSED:
        err.print(f"and {len(refused) - FIRST_REFUSED} more; --dry-run lists them", style="yellow")
    err.print(f"{counted(plan)}; in {plan.folder}", markup=False)


def counted(plan: StudyPlan) -> str:
    """``12 trainings: 3 are finished, 9 to run, about 2 min 10 s (an estimate)``."""
    total = plan.finished + plan.to_train
    said = f"{total} training{'s' * (total != 1)}"
    if not plan.to_train:
        return f"{said}, all finished"
    parts = (
        [f"{plan.finished} {'is' if plan.finished == 1 else 'are'} finished", f"{plan.to_train} to run"] if plan.finished else []
    )
    if plan.expected_seconds is not None:
        parts.append(f"about {text.about(plan.expected_seconds)}, an estimate")
    elif plan.estimate:
        parts.append(plan.estimate)
    return f"{said}{': ' * bool(parts)}{', '.join(parts)}"


def show_plan(out: Console, plan: StudyPlan, as_json: bool) -> int:
    """Every training with what is known of it; the exit status."""
    if as_json:
        print(msgspec.json.encode(plan).decode())
        return 0
    grid = Grid(box=None, pad_edge=False)
    for name in ("", "training", "what", "about"):
        grid.add_column(name, justify="right" if name in ("", "about") else "left", overflow="fold")
    planned = [one for one in plan.trainings if one.status != "refused"]
    for number, one in enumerate(planned, 1):
        name = one.label if plan.repeats == 1 else f"{one.label}, {one.repeat + 1} of {plan.repeats}"
        expected = "" if one.expected is None else text.about(one.expected)
        grid.add_row(str(number), escape(name), "finished" if one.status == "completed" else "to run", expected)
    out.print(grid)
    for one in plan.trainings:
        if one.status == "refused":
            out.print(f"can't run here: {one.label}: {one.reason}", markup=False, style="yellow")
    out.print(f"{counted(plan)}; in {plan.folder}", markup=False)
    if plan.expected_seconds is not None and plan.to_train:
        out.print(f"the estimate: {plan.estimate}", markup=False, style="dim")
    return 0


def show(out: Console, record: StudyRecord) -> None:
    """The tables with their footnotes, the answer, and what to know of it."""
    notes = Notes()
    for table in record.tables:
        for grid in grids(table, notes, out.width):
            if grid.title is None:  # a further part of the one above
                out.print()
            out.print(grid)
    for place, reason in enumerate(notes.texts, 1):
        out.print(f"({place}) {reason}", markup=False, style="dim")
    out.print(f"\n{record.answer}", markup=False, style="bold")
    for sentence in record.sentences:
        out.print(sentence, markup=False)
    for note in record.notes:
        out.print(note, markup=False, style="dim")
    out.print(f"report: {record.report}", markup=False, soft_wrap=True)


def tell_failures(err: Console, record: StudyRecord) -> None:
    """The trainings that did not come to their end, one line each."""
    for one in record.trainings:
        if one.status not in ("completed", "refused", "planned"):
            err.print(
                f"scalelab: {one.label}, {one.repeat + 1} of {record.repeats} {one.status}: {one.reason}",
                markup=False,
                soft_wrap=True,
            )
