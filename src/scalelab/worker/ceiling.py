"""The ceiling of a worker's device, measured by as many processes as a training has, all at once; kept in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import psutil
import torch
import torch.distributed as dist

from scalelab import spec as specs
from scalelab.comm.world import on_cuda
from scalelab.data import cache
from scalelab.measure import ceiling as measure
from scalelab.measure.environment import host
from scalelab.measure.together import rates
from scalelab.record.document import DAMAGED
from scalelab.record.schema import Ceiling, Figure
from scalelab.worker.asked import answering

TRIAL, PRODUCTS, COPIES, STRETCH = 0.06, 0.6, 0.4, 0.1
"""seconds: of each product tried, of the fastest one, of the copies, and of the stretches in which the processes are taken together"""
QUIET = 0.9
"""of the cores' time: with less, other programs were at work"""
BUSY = "measured while the machine was busy"
PATIENCE = timedelta(seconds=60)
"""that the processes wait for one another"""


def rank(number: str, workers: str, threads: str, device: str, precision: str, meeting: str, answer_file: str) -> int:
    """One of ``workers`` processes; the first writes the ``Ceiling`` as JSON. They meet in the file ``meeting``."""
    store = dist.FileStore(meeting, int(workers))
    store.set_timeout(PATIENCE)
    torch.set_num_threads(int(threads))
    where = _device(device, int(number), int(workers))
    asked = _asked(where, int(threads), int(workers), precision)
    place = place_of(asked)
    first = number == "0"
    if first:
        store.set("known", "yes" if _known(place) else "no")
    known = store.get("known") == b"yes"
    if known:
        return answering(answer_file, lambda: _known(place)) if first else 0
    mine = _work(store, int(number), int(workers), where, precision)
    store.set(f"done {number}", msgspec.json.encode(mine).decode())
    if not first:
        return 0
    everyone = [msgspec.json.decode(store.get(f"done {other}"), type=_Done) for other in range(int(workers))]
    found = _together(everyone, asked)
    if found.flops_per_second.reason is None:  # what was measured on a busy machine is measured again the next time
        _keep(place, found)
    return answering(answer_file, lambda: found)


def _device(asked: str, number: int, workers: int) -> torch.device:
    if on_cuda(specs.from_mapping({"device": asked}), workers):
        torch.cuda.set_device(number)
        return torch.device("cuda", number)
    return torch.device("cpu")


def _asked(device: torch.device, threads: int, workers: int, precision: str) -> dict[str, str | int]:
    """What a ceiling belongs to: where one of these differs, it is another."""
    here = host()
    return {
        "host": here.name, "processor": here.processor, "cores": here.cores, "device": measure.name(device), "threads": threads,
        "workers": workers, "precision": precision, "torch": str(torch.__version__),
    }  # fmt: skip


def place_of(asked: dict[str, str | int]) -> Path:
    """Where the cache has the ceiling that belongs to ``asked``."""
    return cache.folder() / f"ceiling-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]}.json"


class _Piece(msgspec.Struct):
    """What one process did in one part: the amount of each piece, when each was done, and how many cores it got meanwhile."""

    name: str
    amount: float
    times: list[float]
    cores: float
    everyone: float
    """cores that all processes of the host used meanwhile"""


class _Done(msgspec.Struct):
    products: _Piece
    copies: _Piece


def _work(store: dist.Store, number: int, workers: int, device: torch.device, precision: str) -> _Done:
    """This process's pieces. It begins each part together with the others."""

    def together(part: str, work: measure.Work, seconds: float) -> _Piece:
        work.do()  # its memory is there, and its kernel chosen, when all begin
        store.set(f"{part} {number}", "")
        store.wait([f"{part} {other}" for other in range(workers)])
        wall, mine, host = time.perf_counter(), time.process_time(), host_seconds()
        times = measure.timed(work, device, seconds)
        took, cores = time.perf_counter() - wall, time.process_time() - mine
        return _Piece(work.name, work.amount, times, cores / took, (host_seconds() - host) / took)

    product = measure.fastest(measure.products(device, precision), device, TRIAL)
    multiplied = together("products", product, PRODUCTS)
    return _Done(multiplied, together("copies", measure.copy(device), COPIES))


def _together(everyone: list[_Done], asked: dict[str, str | int]) -> Ceiling:
    """The best common stretch of all processes, divided by their number."""

    def best(pieces: list[_Piece], unit: str) -> Figure:
        found = rates([one.times for one in pieces], [one.amount for one in pieces], STRETCH)
        if not found:
            return Figure(
                unit=unit, reason="the workers were never at work at the same time: the machine is too busy to measure it"
            )
        each = np.array(found) / len(everyone)
        mad = float(1.4826 * np.median(np.abs(each - np.median(each))))
        return Figure(unit=unit, median=float(each.max()), n=len(found), mad=mad, reason=_busy(pieces, asked))

    return Ceiling(
        flops_per_second=best([one.products for one in everyone], "FLOP/s"),
        copy_bytes_per_second=best([one.copies for one in everyone], "bytes/s"),
        product=everyone[0].products.name,
        **asked,  # type: ignore[arg-type]
    )


def _busy(pieces: list[_Piece], asked: dict[str, str | int]) -> str | None:
    """What to know where the processes did not get the cores that they computed on: other programs had them."""
    wanted = min(int(asked["cores"]), int(asked["workers"]) * int(asked["threads"]))
    ours = sum(piece.cores for piece in pieces)
    others = max(piece.everyone for piece in pieces) - ours
    if asked["device"] != "cpu":
        return None
    if ours < QUIET * wanted:
        return f"{BUSY}: it got {100 * ours / wanted:.0f} % of the cores' time, so this is too low"
    # Threads that wait for one another take a core's time too: where others needed the cores, little was computed in it.
    spare = (psutil.cpu_count() or wanted) - wanted
    if others > spare + (1 - QUIET) * wanted:
        return f"{BUSY}: other programs took {others:.1f} cores of its time, so this is too low"
    return None


def host_seconds() -> float:
    """Seconds of cores that all processes of this host used since it started; Linux counts them in hundredths."""
    used = psutil.cpu_times()
    return float(used.user + used.nice + used.system)


def _known(place: Path) -> Ceiling | None:
    """What the cache has; None for nothing, or a damaged file."""
    try:
        return msgspec.json.decode(place.read_bytes(), type=Ceiling)
    except (OSError, *DAMAGED):
        return None


def _keep(place: Path, found: Ceiling) -> None:
    """In the cache, if there is a place for one."""
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".ceiling-", delete=False) as file:
            file.write(msgspec.json.encode(found))
        os.replace(file.name, place)
