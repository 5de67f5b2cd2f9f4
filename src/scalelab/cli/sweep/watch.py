"""A sweep while it runs: one bar in a terminal, a line now and then elsewhere, and a line for each task that failed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.progress import Progress

from scalelab.cli.terminal import PLAIN_EVERY, bars
from scalelab.record import text
from scalelab.record.sweep import Best, SweepRecord, TaskRecord
from scalelab.sweep.standing import ranked, remaining

if TYPE_CHECKING:
    from scalelab.sweep.crew import Crew

FRESH = 1.0
"""seconds between two looks for the best"""
LITTLE = 20
"""times as long as a look takes, where there are so many tasks that it takes long"""
QUIET_EVERY = 60.0
"""seconds between two lines where the output is no terminal and no task has ended"""
FAILURES = 10
"""that are told while it runs"""
RESULT_FIELDS = set(TaskRecord.__struct_fields__)


class SweepWatch:
    """Tells on ``console`` how a sweep goes. A context manager.

    ``records`` are those of tasks that ended before; ``first`` is said when it begins.
    """

    def __init__(
        self, console: Console, sweep: SweepRecord, records: Mapping[int, TaskRecord], to_run: int, first: str = ""
    ) -> None:
        self.first = first
        self.console, self.sweep, self.records = console, sweep, dict(records)
        self.left, self.of = to_run, sweep.tasks
        self.running: set[int] = set()
        self.failed, self.noted, self.told = 0, "", to_run
        self.heard = time.monotonic()
        self.most = 1
        self.best: Best | None = None
        self.said, self.next_look, self.changed = time.monotonic(), 0.0, True
        self.bars: Progress | None = bars(console) if console.is_terminal else None
        done = sweep.tasks - to_run
        self.bar = self.bars.add_task("sweep", total=self.of, completed=done, facts="starting") if self.bars else None

    def __enter__(self) -> SweepWatch:
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.tick(now=True)
            self.bars.stop()

    def ready(self) -> None:
        """All that was to be checked is well."""
        if self.first:
            self.console.print(self.first, markup=False)

    def began(self, record: dict[str, Any]) -> None:
        """A task has begun."""
        self.running.add(record["task"])
        self.most = max(self.most, len(self.running))

    def ended(self, record: dict[str, Any]) -> None:
        """A task has ended; where it failed, it is told why."""
        self.running.discard(record["task"])
        self.left -= 1
        self._take(msgspec.convert({name: value for name, value in record.items() if name in RESULT_FIELDS}, TaskRecord))

    def stands(self, records: Mapping[int, TaskRecord], running: set[int], waiting: set[int]) -> None:
        """How it is now, where nobody tells of each task."""
        self.running, self.most, self.left = set(running), max(self.most, len(running)), len(running | waiting)
        for task, record in records.items():
            before = self.records.get(task)
            if record.ended is not None and (before is None or before.ended != record.ended):
                self._take(record)
        self.tick()

    def note(self, line: str) -> None:
        """Something that was not so the last time."""
        if line != self.noted:
            self.noted = line
            self.console.print(line, markup=False, style="yellow")

    def _take(self, found: TaskRecord) -> None:
        self.records[found.task] = found
        self.changed, self.heard = True, time.monotonic()
        if found.status == "failed":
            self.failed += 1
            if self.failed <= FAILURES:
                more = "; `scalelab sweep status` tells of the others" if self.failed == FAILURES else ""
                self.console.print(
                    f"task {found.task} failed: {found.reason} ({said(found.values)}){more}", markup=False, style="red"
                )

    def lost(self, crew: Crew) -> None:
        """A host was lost; its tasks go to others."""
        self.console.print(f"{crew.name} is lost: {crew.gone}; its tasks go to the others", markup=False, style="yellow")
        self.running -= set(crew.running)

    def tick(self, now: bool = False) -> None:
        """Show how it stands, where something has changed and the last time is a while ago."""
        at = time.monotonic()
        if not now and at < self.next_look:
            return
        if self.changed and self.sweep.goal:
            found = ranked(self.sweep, self.records, self.sweep.goal, self.sweep.least, 1)
            self.best, self.changed = found[0] if found else None, False
        self.next_look = at + max(FRESH, LITTLE * (time.monotonic() - at))
        if self.bars is not None and self.bar is not None:
            self.bars.update(self.bar, completed=self.of - self.left, facts=self.facts())
        elif at - self.said > (PLAIN_EVERY if self.left != self.told else QUIET_EVERY):
            self.said, self.told = at, self.left
            self.console.print(f"{self.of - self.left}/{self.of} tasks ended, {self.facts()}", markup=False)

    def facts(self) -> str:
        """``8 running, 1 failed, about 2 min left, best accuracy 0.93: lr=0.1``."""
        counts = {"running": len(self.running), "queued": self.left - len(self.running)}
        rest = remaining(self.records, counts, self.most)
        if rest is not None:  # since the last task ended, all that run have come further
            rest = max(0.0, rest - (time.monotonic() - self.heard))
        parts = [f"{len(self.running)} running", f"{self.failed} failed" if self.failed else ""]
        parts += [
            "" if rest is None else f"about {text.about(rest)} left",
            "" if self.best is None else f"best {of_best(self.sweep, self.best)}",
        ]
        return ", ".join(part for part in parts if part)


def of_best(sweep: SweepRecord, best: Best) -> str:
    """``accuracy 0.93: lr=0.1 batch=128``."""
    shown = text.shown(best.figure, text.number)
    return f"{sweep.goal} {shown}: {said(best.values)}"


def said(values: Mapping[str, str], most: int = 90) -> str:
    """``lr=0.1 batch=128``, in one line."""
    return text.shorten(" ".join(f"{name}={' '.join(value.split())}" for name, value in values.items()) or "no parameters", most)
