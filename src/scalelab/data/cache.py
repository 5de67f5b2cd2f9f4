"""Decoded data kept on disk as .npy files, mapped into memory: the next start is instant, ranks share pages.

An entry is ``NAME-KEY.json`` beside ``NAME-KEY.PART.npy``; the key is a hash of the source files' paths, sizes and
times of change, and of the loader's version. Everything is written to a temporary name, then renamed; the manifest
comes last and holds a checksum of each part. Two processes that build the same entry write the same bytes, so
whoever renames last changes nothing. Without a folder to write to, data is loaded without a cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from scalelab.data.dataset import Arrays, Progress
from scalelab.data.locking import exclusive

Build = Callable[[], Arrays]


def folder() -> Path:
    """$SCALELAB_CACHE, or scalelab in $XDG_CACHE_HOME, or ~/.cache/scalelab."""
    if own := os.environ.get("SCALELAB_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "scalelab"


def cached(name: str, version: str, sources: Sequence[Path], build: Build, progress: Progress) -> Arrays:
    """The arrays of ``build()``, from the cache where it has them, else built and kept there.

    ``version`` changes when the loader's output does; ``sources`` are the files the data comes from. The arrays
    are copy-on-write maps of the cached files. What ``build`` raises passes through, and nothing is kept.
    """
    stem = folder() / f"{name}-{_key(version, sources)}"
    if (arrays := _load(stem)) is not None:
        return arrays
    with contextlib.suppress(OSError):
        stem.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(stem.parent):
        if (arrays := _load(stem)) is not None:  # another process has built it while this one waited
            return arrays
        arrays = {part: np.ascontiguousarray(array) for part, array in build().items()}
        try:
            _store(stem, arrays)
        except OSError as error:
            progress(
                f"no cache in {folder()} ({error.strerror}): data is read anew at each start; SCALELAB_CACHE names another folder"
            )
            return arrays
    return _load(stem) or arrays


def _key(version: str, sources: Sequence[Path]) -> str:
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    return hashlib.sha256(json.dumps([version, facts]).encode()).hexdigest()[:24]


def _part(stem: Path, part: str) -> Path:
    return stem.with_name(f"{stem.name}.{part}.npy")


def _manifest(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.json")


def _load(stem: Path) -> Arrays | None:
    """The entry mapped copy-on-write, or None where there is none, or it is damaged."""
    try:
        sums = json.loads(_manifest(stem).read_bytes())
        arrays = {part: np.load(_part(stem, part), mmap_mode="c", allow_pickle=False) for part in sums}
        if not sums or any(_checksum(array) != sums[part] for part, array in arrays.items()):
            return None
    except (OSError, ValueError, EOFError, TypeError, AttributeError):
        return None
    # Plain ndarray views of the maps: torch takes them without a copy, and they keep the file mapped.
    return {part: np.asarray(array) for part, array in arrays.items()}


def _checksum(array: np.ndarray) -> str:
    """Shape, type and the sum of the 64-bit words: a tenth of the time of a CRC, and sees any lost or zeroed page."""
    data = array.reshape(-1).view(np.uint8)
    words = data[: len(data) // 8 * 8].view(np.uint64)
    rest = int(data[len(words) * 8 :].sum(dtype=np.uint64))
    return f"{array.dtype.str}{list(array.shape)}:{int(words.sum(dtype=np.uint64)):x}:{rest:x}"


def _store(stem: Path, arrays: Arrays) -> None:
    """Write every part, then the manifest. Raises OSError; nothing half-written stays."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for part, array in arrays.items():
        write(_part(stem, part), partial(_save, array))
    sums = json.dumps({part: _checksum(array) for part, array in arrays.items()})
    write(_manifest(stem), lambda file: file.write(sums.encode()))


def _save(array: np.ndarray, file: IO[bytes]) -> None:
    """np.save, but a full disk is an OSError that says so: numpy's own write hides the reason."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.reshape(-1).view(np.uint8).data)


def write(path: Path, content: Callable[[IO[bytes]], object]) -> None:
    """A file that is whole or absent: ``content`` writes to a temporary name. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            content(file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the new name with old zeros
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
