"""Many small files of one folder, read in a moment: a sweep leaves one for each of its tasks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

FIRST = 64
"""files that are read alone before it is known how long one takes; and those that a thread reads at a time"""
PATIENCE = 0.0003
"""seconds that a file may take: 30 microseconds on a disk of this machine, a millisecond or more on another's"""
READERS = 16
PART = 1 << 16


def bodies(folder: Path, wanted: Callable[[str], bool], patience: float = PATIENCE) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files in ``folder`` whose names are ``wanted``, in any order; one that can't be read is left out.

    Files that come from a network disk are asked for by threads, many at once: what takes long there is the way, not the reading.
    ``patience``: seconds that a file may take before that is done. Raises OSError where the folder can't be read.
    """
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # names are then looked up in it, not along the whole path
    try:
        names = [name for name in os.listdir(place) if wanted(name)]
        began = time.perf_counter()
        yield from _some(place, names[:FIRST])
        if time.perf_counter() - began <= patience * FIRST:
            yield from _some(place, names[FIRST:])
        else:
            yield from _together(place, names[FIRST:])
    finally:
        os.close(place)


def _together(place: int, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    from concurrent.futures import ThreadPoolExecutor  # here: most folders need no threads

    parts = [names[start : start + FIRST] for start in range(0, len(names), FIRST)]
    with ThreadPoolExecutor(READERS) as readers:
        for part in readers.map(lambda part: list(_some(place, part)), parts):
            yield from part


def _some(place: int, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        body = _body(place, name)
        if body is not None:
            yield name, body


def _body(place: int, name: str) -> bytes | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=place)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(file, PART):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return None
    finally:
        os.close(file)
