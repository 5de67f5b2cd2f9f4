"""What the first rank writes while it trains: steps, epochs, TensorBoard events, and the record's figures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from scalelab.errors import RunError
from scalelab.measure.pacing import summed_up
from scalelab.record import folder as records
from scalelab.record.schema import Epoch, Step


class Journal:
    """Appends to the run's folder. Raises RunError when the disk is full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = records.load(folder)
        self.steps: list[Step] = []
        self.encoder = msgspec.json.Encoder()
        self.bytes_sent: dict[int, int] = {}
        """by batch, where it was probed: what a step of another batch sends may be another amount"""

    def open(self, first_step: int) -> None:
        """Start at ``first_step``: lines of later steps, of an attempt that was cut off, are dropped."""
        self.steps = [step for step in records.read_steps(self.folder) if step.step <= first_step]
        self.record.epochs = [e for e in self.record.epochs if self._ended_by(e, first_step)]
        records.write_atomic(self.folder / "steps.jsonl", b"".join(self.encoder.encode(s) + b"\n" for s in self.steps))
        self.lines = (self.folder / "steps.jsonl").open("ab")
        self.events = EventFileWriter(str(self.folder))
        self.save()

    def note(self, text: str) -> None:
        """Something a reader of the record should know; a further attempt does not say it again."""
        if text not in self.record.notes:
            self.record.notes.append(text)

    def add_steps(self, steps: list[Step]) -> None:
        """Append steps, and flush: a reader follows the file while it grows."""
        try:
            self.lines.write(b"".join(self.encoder.encode(s) + b"\n" for s in steps))
            self.lines.flush()
        except OSError as error:
            raise RunError(
                f"{self.folder}/steps.jsonl: cannot be written: {error.strerror}; free some space or choose another --out"
            ) from error
        self.steps.extend(steps)
        if steps:  # an event for each exchange, not for each step: protobuf costs 30 µs
            values = {
                "train/loss": sum(s.loss for s in steps) / len(steps),
                "train/learning_rate": steps[-1].learning_rate,
                "train/images_per_second": sum(s.batch for s in steps) / sum(s.seconds for s in steps),
            }
            self._event(steps[-1].step, values)

    def add_epoch(self, epoch: Epoch) -> None:
        """Note an epoch's scores in the record. Only the newest epoch keeps its confusion matrix."""
        before = [msgspec.structs.replace(e, confusion=[]) for e in self.record.epochs if e.epoch != epoch.epoch]
        self.record.epochs = [*before, epoch]
        self._event(
            sum(e.steps for e in self.record.epochs),
            {
                "test/loss": epoch.test_loss,
                "test/accuracy": epoch.accuracy,
                "test/precision": epoch.precision,
                "test/recall": epoch.recall,
            },
        )
        self.save()

    def save(self) -> None:
        """Bring the record's figures up to date and replace record.json."""
        record = self.record
        record.steps, record.losses = len(self.steps), [s.loss for s in self.steps]
        record.accuracy = record.epochs[-1].accuracy if record.epochs else None
        record.best_accuracy = max((e.accuracy for e in record.epochs), default=None)
        summed_up(record, self.steps)
        records.save(self.folder, record)

    def close(self) -> None:
        """Flush everything to the disk."""
        self.lines.close()
        self.events.close()

    def _ended_by(self, epoch: Epoch, step: int) -> bool:
        return sum(e.steps for e in self.record.epochs if e.epoch <= epoch.epoch) <= step

    def _event(self, step: int, values: Mapping[str, float | None]) -> None:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=v) for tag, v in values.items() if v is not None])
        self.events.add_event(Event(wall_time=time.time(), step=step, summary=summary))
