"""``timeline.json`` of a run: what each worker of a pipeline did, when, in a few steps that were recorded and never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from scalelab.record import document
from scalelab.record.folder import write_atomic

FILE = "timeline.json"

Kind = Literal["forward", "backward", "input", "weight", "wait", "reduce", "update"]
"""backward: whole; input and weight: its two halves, where a schedule puts the weights' gradients off; wait: for a neighbour; reduce: the
replicas' gradients, averaged; update: the optimizer"""
CHUNKS: tuple[Kind, ...] = ("forward", "backward", "input", "weight")
"""what a schedule orders: the rest of a step is no part of a bubble"""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """``start`` and ``end`` in seconds from the step's first event on any worker, by the first worker's clock."""

    kind: Kind
    start: float
    end: float
    stage: int | None = None
    micro_batch: int | None = None


class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One worker in one step: its place in its pipeline, which replica's that is, and its events in the order of their start."""

    rank: int
    place: int
    replica: int
    events: list[Event]

    @property
    def chunks(self) -> list[Event]:
        """The forward and backward passes."""
        return [event for event in self.events if event.kind in CHUNKS]


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded steps, each a lane for each worker."""

    format: int = 1
    schedule: str
    """``gpipe`` and so on; ``model`` where one stage computes at a time"""
    workers: int
    """of one pipeline"""
    stages: int
    micro_batches: int
    micro_batch: int
    """images"""
    clock_error: float
    """seconds by which two workers' clocks may disagree at most; 0 where all are on one host"""
    steps: list[list[Lane]]


def write(folder: Path, timeline: Timeline) -> None:
    """Into a run's folder, whole or not at all. Raises RunError where the disk is full."""
    write_atomic(folder / FILE, msgspec.json.encode(timeline))


def read(folder: Path) -> Timeline | None:
    """Of a run; None where none was recorded. Raises ScalelabError for a file that is not one."""
    try:
        return document.read(folder / FILE, Timeline, "a timeline")
    except FileNotFoundError:
        return None
