"""Files that a reader sees whole or not at all. Imports next to nothing: short-lived processes use it too."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from scalelab.errors import RunError


def write_atomic(path: Path, content: str | bytes, sync: bool = True) -> None:
    """Write beside, then rename: a reader sees the old or the new file, never half of one, even after a loss of power.

    ``sync=False`` leaves out what takes longest, and with it the promise about power: for what is replaced again soon.
    Raises RunError naming the file, with the half-written one removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if sync:
                os.fsync(file.fileno())  # a rename can reach the disk before what it names
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # there is none, and a read-only disk says so in its own way
            temporary.unlink()
        raise RunError(f"{path}: cannot be written: {error.strerror}; free some space or choose another --out") from error
