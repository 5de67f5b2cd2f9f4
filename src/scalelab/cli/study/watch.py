"""A study while it runs: a line for each training that ended, a bar for the one that runs, and when the end is to be expected."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from scalelab.cli.terminal import Watcher, bars
from scalelab.record import text
from scalelab.studies.running.running import Begins, Ended, Watching


class StudyWatch(Watching):
    """Tells on ``console`` how a study goes. A context manager: the bars are gone when it ends."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars: Progress | None = None

    def __enter__(self) -> StudyWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def begins(self, training: Begins) -> Callable[[Path], None]:
        """A bar for it, with what of the whole study is left; elsewhere a line."""
        if not self.console.is_terminal:
            self.console.print(f"[{training.number}/{training.of}] {training.label}: begins{left(training)}", markup=False)
            return Watcher(self.console, training.label, training.steps).watch
        self.stop()
        self.bars = bars(self.console)
        self.bars.start()
        label = f"{training.number}/{training.of} {training.label}"
        return self._watched(training, Watcher(self.console, label, training.steps, self.bars))

    def _watched(self, training: Begins, watcher: Watcher) -> Callable[[Path], None]:
        start, shown = time.monotonic(), [0.0]

        def watch(folder: Path) -> None:
            watcher.watch(folder)
            now = time.monotonic()
            if training.remaining is not None and self.bars is not None and now - shown[0] > 1.0:
                shown[0] = now
                rest = text.about(training.remaining - (now - start))
                self.bars.update(self.bars.task_ids[0], description=escape(f"{watcher.label}, about {rest} left"))

        return watch

    def ended(self, training: Ended) -> None:
        """One line that stays: how it ended, how long it took, how fast it was."""
        self.stop()
        record, begun = training.record, training.begun
        rate = record.images_per_second
        facts = [
            record.status if record.failure is None else f"{record.status}: {record.failure.error}",
            "" if training.seconds is None else text.seconds(training.seconds),
            "" if rate.median is None else f"{text.rate(rate.median)} images/s",
            "" if record.accuracy is None else f"accuracy {text.percent(record.accuracy)}",
        ]
        said = ", ".join(fact for fact in facts if fact)
        style = "red" if record.failure is not None else None
        self.console.print(f"[{begun.number}/{begun.of}] {begun.label}: {said}", markup=False, style=style)


def left(training: Begins) -> str:
    """``, 1 min 10 s gone, about 4 min left``."""
    gone = f", {text.about(training.elapsed)} gone" if training.elapsed >= 1 else ""
    return gone + ("" if training.remaining is None else f", about {text.about(training.remaining)} left")
