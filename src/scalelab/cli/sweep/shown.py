"""What a terminal shows of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scalelab.cli.sweep.watch import of_best
from scalelab.cli.terminal import console
from scalelab.record import text
from scalelab.record.sweep import SweepRecord, SweepStatus
from scalelab.sweep import keeping, standing
from scalelab.sweep.table import TaskRow

STATES = {
    "completed": None, "failed": "red", "interrupted": "yellow", "lost": "yellow", "running": None, "queued": None, "missing": "yellow",
}  # fmt: skip
"""in the order in which they are told, with their styles"""
LEAST_VALUE, MOST_VALUE, REASON = 8, 30, 12
"""characters of a parameter's value in a narrow and in a wide terminal, and of a status at least"""


def finish(folder: Path, sweep: SweepRecord, as_json: bool, err: Console) -> int:
    """How a sweep stands when nothing of it runs any more; the exit status."""
    records = keeping.results(folder)
    states = keeping.states(sweep.tasks, records, alive=False)
    found = standing.status(folder, sweep, states, records, None)
    show_status(found, sweep, as_json)
    return 0 if found.completed == sweep.tasks else 1


def show_status(found: SweepStatus, sweep: SweepRecord, as_json: bool) -> None:
    """Counts, the best, what failed, and what to do next."""
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    say = console()
    say.print(f"{found.sweep}: {counted(found)}", markup=False)
    if found.best is not None:
        interval = text.interval(found.best.figure, text.number)
        more = f" [{interval}], n {found.best.figure.n}" if interval else ""
        say.print(f"best {of_best(sweep, found.best)} ({tasks_of(found.best.tasks)}){more}", markup=False)
    if found.remaining_seconds is not None:
        say.print(f"about {text.about(found.remaining_seconds)} left", markup=False)
    for line in [*found.failures, *found.notes]:
        say.print(line, markup=False, style="dim")
    rest = found.failed + found.interrupted + found.lost
    if rest > standing.SHOWN_FAILURES:
        say.print(
            f"… and {rest - standing.SHOWN_FAILURES} more: `scalelab sweep results {found.sweep} --failed`",
            markup=False,
            style="dim",
        )
    if (rest or (found.missing and not found.failures)) and not found.running + found.queued:
        say.print(f"`scalelab sweep resume {found.sweep}` runs what is not completed", markup=False)
    elif found.completed == found.tasks:
        say.print(f"`scalelab sweep results {found.sweep}` shows them; -o sweep.html makes a page", markup=False)


def tasks_of(numbers: Sequence[int], most: int = 5) -> str:
    """``task 3``, ``tasks 3, 11, 19``."""
    named = ", ".join(map(str, numbers[:most])) + (", …" if len(numbers) > most else "")
    return f"task{'s' * (len(numbers) != 1)} {named}"


def counted(found: SweepStatus) -> str:
    """``200 tasks: 196 completed, 3 failed, 1 lost``."""
    parts = [f"{count} {'not begun' if state == 'missing' else state}" for state in STATES if (count := getattr(found, state))]
    return f"{text.counted(found.tasks, 'task')}: {', '.join(parts)}"


def show_rows(out: Console, sweep: SweepRecord, rows: Sequence[TaskRow], of: int) -> None:
    """The tasks as a table."""
    table = Table(box=None, pad_edge=False)
    table.add_column("task", justify="right")
    for name in sweep.parameters:
        table.add_column(escape(name), no_wrap=True, justify="right")
    if sweep.repeats > 1:
        table.add_column("seed", no_wrap=True, justify="right")
    for name in (*(escape(one.name) for one in sweep.metrics), "time", "memory"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("host", no_wrap=True)
    table.add_column("status", min_width=REASON)
    others = 12 * (len(sweep.metrics) + 4) + REASON
    most = max(LEAST_VALUE, min(MOST_VALUE, (out.width - others) // max(1, len(sweep.parameters))))
    for row in rows:
        table.add_row(*(escape(cell) for cell in cells(sweep, row, most)), style=STATES[row.state])
    out.print(table)
    if of > len(rows):
        out.print(
            f"… {of - len(rows)} more: --all shows them; -o FILE.csv, .parquet or .html has them", markup=False, style="dim"
        )


def cells(sweep: SweepRecord, row: TaskRow, most: int = MOST_VALUE) -> list[str]:
    """A task's cells; of a parameter's value at ``most`` characters."""
    found = [str(row.task), *(text.shorten(" ".join(row.values[name].split()), most) for name in sweep.parameters)]
    found += [str(row.seed)] if sweep.repeats > 1 else []
    found += [text.ABSENT if (value := row.metrics.get(one.name)) is None else f"{value:.6g}" for one in sweep.metrics]
    found.append(text.ABSENT if row.seconds is None else text.seconds(row.seconds))
    found.append(text.ABSENT if row.peak_memory_bytes is None else text.size(row.peak_memory_bytes))
    return [*found, row.host, row.state if not row.reason else f"{row.state}: {text.shorten(' '.join(row.reason.split()), 70)}"]
