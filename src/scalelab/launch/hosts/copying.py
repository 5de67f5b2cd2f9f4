"""What ranks write on another host, put into the run's folder here: the end of ``mirror`` that receives."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from scalelab.errors import RunError
from scalelab.launch.hosts.channel import Message


class Copy:
    """The copy of a run's folder, as far as one host writes to it. Files that were here before are appended to.

    ``ahead``: seconds that the host's clock is ahead of this one's; the times of failures are set right by it. ``host``: its name.
    """

    def __init__(self, folder: Path, host: str, ahead: float = 0.0) -> None:
        self.folder, self.host, self.ahead = folder, host, ahead
        self._bases: dict[str, int] = {}
        self._torn: set[str] = set()
        """files that grow, and of which a part could not be written: what came after it would leave a hole"""

    def take(self, message: Message, body: bytes) -> None:
        """Carry out a message of a ``Mirror``. Raises RunError naming what can't be written."""
        path = self.folder / inside(message["path"])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            {"grown": self._grown, "whole": self._whole, "forget": self._forget, "gone": self._gone}[message["do"]](
                path, message, body
            )
        except OSError as error:
            if message["do"] == "grown":
                self._torn.add(message["path"])
            raise RunError(f"{path}: cannot be written: {error.strerror}; free some space or choose another --out") from error

    def known(self, name: str) -> None:
        """The host has this file as it is here: what it sends of it counts from its beginning."""
        self._bases[name] = 0

    def _grown(self, path: Path, message: Message, body: bytes) -> None:
        name = str(message["path"])
        if message["fresh"]:  # another file has taken its place there
            self._bases[name] = 0
            _replace(path, body)
            self._torn.discard(name)
            return
        if name in self._torn:
            return
        if name not in self._bases:
            self._bases[name] = path.stat().st_size if path.exists() else 0
        with path.open("r+b" if path.exists() else "wb") as file:
            file.seek(self._bases[name] + message["at"])
            file.write(body)

    def _whole(self, path: Path, message: Message, body: bytes) -> None:
        half = _half(path)
        with half.open("r+b" if message["at"] else "wb") as file:
            file.seek(message["at"])
            file.write(body)
            if not message["last"]:
                return
            file.flush()
            os.fsync(file.fileno())
        if path.parent.name == "failures":
            half.write_bytes(self._corrected(half.read_bytes()))
        os.replace(half, path)

    def _forget(self, path: Path, message: Message, body: bytes) -> None:
        _half(path).unlink(missing_ok=True)

    def _gone(self, path: Path, message: Message, body: bytes) -> None:
        path.unlink(missing_ok=True)

    def _corrected(self, body: bytes) -> bytes:
        """A failure with the time it has on this host's clock, and the host's name as it is known here."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            failure = json.loads(body)
            time = datetime.fromisoformat(failure["time"]) - timedelta(seconds=self.ahead)
            said = time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            error = failure["error"].replace("choose another --out", "another TMPDIR there (--env TMPDIR=…)")
            return json.dumps({**failure, "time": said, "host": self.host, "error": error}).encode()
        return body


def inside(name: str) -> PurePosixPath:
    """A path that stays inside the folder it is relative to. Raises RunError for another one."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or any(part == ".." or part.startswith(".") for part in path.parts):
        raise RunError(f"a host wants to write {name!r}, which is no file of a run")
    return path


def _half(path: Path) -> Path:
    return path.with_name(f".{path.name}.copy.tmp")


def _replace(path: Path, body: bytes) -> None:
    half = _half(path)
    half.write_bytes(body)
    os.replace(half, path)
