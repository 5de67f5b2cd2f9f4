"""One thread of each worker that notes, once in a while, what the worker uses; and what a run's samples come to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from scalelab.comm.world import World
from scalelab.measure import resources as measure
from scalelab.measure.statistics import absent, blocks, figure
from scalelab.record import samples
from scalelab.record.schema import Figure, Resources, Sample, TrainRecord

THREAD = "scalelab-resources"
"""its name"""
SHORTEST = 0.1
"""seconds since the last sample without which the end of a training adds none: CPU time is counted in hundredths of a second"""


@contextmanager
def sampling(folder: Path, world: World, seconds: float) -> Iterator[None]:
    """Sample this worker every ``seconds`` (0: never) while the body runs, and once at its end."""
    if seconds == 0:
        yield
        return
    network = measure.interface(os.environ.get("MASTER_ADDR", "127.0.0.1")) if world.size > 1 else None
    ended = threading.Event()
    thread = threading.Thread(target=_run, args=(folder, world, network, seconds, ended), name=THREAD, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _run(folder: Path, world: World, network: str | None, seconds: float, ended: threading.Event) -> None:
    """Until ``ended``, or until the disk is full: a training goes on without samples."""
    path = samples.path(folder, world.rank)
    reader = measure.Reader(world.device, network)
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("ab", buffering=0) as file:
            while not ended.wait(seconds):
                _append(file.fileno(), msgspec.json.encode(reader.sample(world.rank)) + b"\n")
            if reader.since() >= SHORTEST:
                _append(file.fileno(), msgspec.json.encode(reader.sample(world.rank)) + b"\n")
    except OSError:
        return


def _append(descriptor: int, line: bytes) -> None:
    """Write a whole line or none of it. Raises OSError."""
    before = os.fstat(descriptor).st_size
    try:
        written = os.write(descriptor, line)
    except OSError:
        written = 0
    if written < len(line):
        os.ftruncate(descriptor, before)
        raise OSError("the disk is full")


def summarise(folder: Path, record: TrainRecord) -> Resources | None:
    """What the last attempt's samples come to; None where none were asked for."""
    seconds = float(record.spec.get("sample_seconds", 0))
    if seconds == 0:
        return None
    taken = samples.read(folder, datetime.fromisoformat(record.attempts[-1].started).timestamp())
    cuda, several = record.environment.device == "cuda", record.workers > 1
    without_gpu = "no sample was taken" if cuda else measure.NO_GPU
    network = measure.NO_INTERFACE if several else measure.ALONE

    def of(read: Callable[[Sample], float | None], unit: str, missing: str) -> Figure:
        return _figure([read(sample) for sample in taken], unit, missing)

    return Resources(
        sample_seconds=seconds,
        cpu_percent=of(lambda s: s.cpu_percent, "%", ""),
        resident_bytes=of(lambda s: s.resident_bytes, "bytes", ""),
        sent_bytes_per_second=of(lambda s: s.sent_per_second, "bytes/s", network),
        received_bytes_per_second=of(lambda s: s.received_per_second, "bytes/s", network),
        gpu_percent=of(lambda s: s.gpu_percent, "%", measure.NO_NVML if cuda else without_gpu),
        gpu_memory_bytes=of(lambda s: s.gpu_memory_bytes, "bytes", without_gpu),
        power_watts=of(lambda s: s.power_watts, "W", measure.NO_NVML if cuda else without_gpu),
    )


def _figure(values: Sequence[float | None], unit: str, missing: str) -> Figure:
    """Over the samples that have it. ``missing``: why they have not."""
    if not values:
        return absent(unit, "the training was shorter than a sample")
    known = [value for value in values if value is not None]
    return figure(blocks(known), unit) if known else absent(unit, missing)
