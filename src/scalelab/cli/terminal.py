"""What people read while they wait, and after: on stderr while it runs, the result on stdout."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO, cast

import msgspec
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.segment import Segment
from rich.table import Column

from scalelab.record import text
from scalelab.record.schema import Figure, Step, TrainRecord

PLAIN_EVERY = 5.0
"""seconds between two progress lines when the output is not a terminal"""


class Safe(Console):
    """A console on which only its own styles and bars are obeyed, never what the printed text holds."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of ``renderable``, each text harmless."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(text.harmless(segment.text), segment.style)


class Trimmed(io.TextIOBase):
    """A stream whose lines get no spaces at their ends, with which a table pads them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own."""
        return self._stream.encoding

    def write(self, words: str) -> int:
        """Each line without what pads it."""
        self._stream.write(re.sub(r" +(?=\n)", "", words))
        return len(words)

    def flush(self) -> None:
        """The stream's own."""
        self._stream.flush()


def console(to_stderr: bool = False) -> Console:
    """A console that is plain when its stream is not a terminal, and without colour under NO_COLOR."""
    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        return Safe(file=stream, highlight=False)
    return Safe(file=cast(TextIO, Trimmed(stream)), highlight=False, width=160, soft_wrap=True)


class Watcher:
    """Follows a run's folder and shows a bar (terminal) or a line now and then (elsewhere).

    ``watch(folder)`` is the launcher's callback. While it runs, the throughput is that of the steps since the last look; at its end it is
    the record's.
    """

    def __init__(self, console: Console, label: str, total_steps: int, progress: Progress | None = None) -> None:
        self.console, self.label, self.total = console, label, total_steps
        self.decoder = msgspec.json.Decoder(Step)
        self.inode, self.offset = 0, 0
        """of the file of steps, as far as it was read"""
        self.step, self.loss, self.rate = 0, float("nan"), 0.0
        self.accuracy, self.record_seen, self.said = "", 0.0, time.monotonic()
        self.whole: float | None = None
        self.folder: Path | None = None
        """of the run, once there is one"""
        self.own = progress is None and console.is_terminal
        self.progress = progress or (bars(console) if console.is_terminal else None)
        self.task = self.progress.add_task(escape(label), total=total_steps, facts="starting") if self.progress else None

    def __enter__(self) -> Watcher:
        if self.own and self.progress:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.own and self.progress:
            self.progress.stop()

    def watch(self, folder: Path) -> None:
        """Take in what was written since the last call, and show it."""
        self.folder = folder
        new = self._new_steps(folder)
        if new:
            self.step, self.loss = new[-1].step, new[-1].loss
            self.rate = sum(s.batch for s in new) / sum(s.seconds for s in new)
        epoch = self._new_epoch(folder)
        if self.progress is not None and self.task is not None:
            if new or epoch:
                self.progress.update(self.task, total=self.total, completed=self.step, facts=self._facts())
        elif (new or epoch) and (time.monotonic() - self.said > PLAIN_EVERY or (self.step == self.total and epoch)):
            self.said = time.monotonic()
            self.console.print(f"{self.label}: step {self.step}/{self.total}, {self._facts()}", markup=False)

    def _facts(self) -> str:
        rate = self.rate if self.step < self.total else self.whole
        said = "" if rate is None else f"{rate:7,.0f} images/s, "
        return f"{said}loss {self.loss:.3f}{self.accuracy}" if self.step else "starting"

    def _new_steps(self, folder: Path) -> list[Step]:
        try:
            with (folder / "steps.jsonl").open("rb") as file:
                now = os.fstat(file.fileno())
                if (
                    now.st_ino != self.inode or now.st_size < self.offset
                ):  # a run that goes on drops the lines after its checkpoint
                    self.inode, self.offset = now.st_ino, 0
                file.seek(self.offset)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self.offset += len(whole) + len(newline)
        return [self.decoder.decode(line) for line in whole.split(b"\n") if line]

    def _new_epoch(self, folder: Path) -> bool:
        path = folder / "record.json"
        try:
            changed = path.stat().st_mtime
            if changed == self.record_seen:
                return False
            self.record_seen = changed
            record = msgspec.json.decode(path.read_bytes(), type=TrainRecord)
        except FileNotFoundError:
            return False
        before = self.accuracy
        if record.steps >= self.total:
            self.whole = record.images_per_second.median
        if record.epochs:
            last = record.epochs[-1]
            self.accuracy = f", accuracy {last.accuracy:.1%}"
        return self.accuracy != before


class Observer:
    """One Watcher after another, for a command that runs several trainings: ``observer(label)`` begins the next."""

    def __init__(self, console: Console, total_steps: int) -> None:
        self.console, self.total = console, total_steps
        self.progress = bars(console) if console.is_terminal else None

    def __enter__(self) -> Observer:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress:
            self.progress.stop()

    def __call__(self, label: str) -> Callable[[Path], None]:
        return Watcher(self.console, label, self.total, self.progress).watch


def bars(console: Console) -> Progress:
    """Progress bars with the run's facts beside them; what a narrow terminal has no room for is the bar's length."""
    facts = TextColumn("{task.fields[facts]}", table_column=Column(no_wrap=True))
    name = TextColumn("{task.description}", table_column=Column(no_wrap=True))
    return Progress(name, BarColumn(bar_width=max(6, min(30, console.width - 74))), MofNCompleteColumn(), facts, console=console)


def shown(figure: Figure, show: text.Show) -> str:
    """A figure with its interval, ``1,280 images/s [1,262–1,301]``, or a dash with the reason."""
    if figure.median is None:
        return f"{text.ABSENT} ({figure.reason})" if figure.reason else text.ABSENT
    interval = text.interval(figure, show)
    return text.shown(figure, show) + (f" [{interval}]" if interval else "") + (f" ({figure.reason})" if figure.reason else "")
