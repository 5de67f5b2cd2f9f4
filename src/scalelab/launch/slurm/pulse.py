"""Whether ranks on other hosts compute: by the samples that they append to the run's folder, a line a second each."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from scalelab.launch.silence import IDLE
from scalelab.record.document import DAMAGED
from scalelab.record.schema import Sample

TAIL = 4096
"""bytes at the end of a file that hold its last line"""


class Samples:
    """Of a run's folder. Ranks that leave none (``--sample-seconds 0``, or they have not come to it) count as alive.

    Their process group's own timeout stands then. What an earlier attempt has left there says nothing of this one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "resources"
        self.seen: dict[Path, int] = {path: path.stat().st_size for path in self.folder.glob("rank-*.jsonl")}
        self.left = dict(self.seen)

    def beat(self) -> bool:
        """Whether one has computed since the last beat."""
        computed = [self._computed(path) for path in self.folder.glob("rank-*.jsonl")]
        return self.seen == self.left or any(computed)

    def _computed(self, path: Path) -> bool:
        with contextlib.suppress(OSError, *DAMAGED):
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size == self.seen.get(path):
                    return False
                self.seen[path] = size
                file.seek(max(0, size - TAIL))
                last = file.read().strip().rpartition(b"\n")[2]
            used = msgspec.json.decode(last, type=Sample).cpu_percent
            return used is not None and used > 100 * IDLE
        return False
