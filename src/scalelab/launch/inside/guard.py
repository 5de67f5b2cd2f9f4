"""Closes a run's record where the process of the first rank was killed before it could: Open MPI gives it a quarter of a second.

``python -m scalelab.launch.inside.guard FOLDER PID``, in a session of its own: it waits for the end of its standard input, which the
process PID holds, and then for nothing else.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.launch.ending import close
from scalelab.launch.failure import written
from scalelab.launch.signals import ENDING
from scalelab.record import folder as records
from scalelab.record.schema import Failure, Status

ASKED, CLOSED = b"a", b"c"
"""what it is told: this process was asked to end; the record is closed"""
KILLED = "the process of rank 0 was killed before it could close the record"


class Guard:
    """The guard's process, seen from the one that it watches: while that lives, the guard does nothing."""

    def __init__(self, folder: Path, pid: int) -> None:
        line = [sys.executable, "-m", __name__, str(folder), str(pid)]
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True, bufsize=0)

    def tell(self, word: bytes) -> None:
        """Tell the guard one of the words ``ASKED``, ``CLOSED``."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(word)

    def close(self) -> None:
        """Tell the guard that the record is closed, and wait for its end."""
        self.tell(CLOSED)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def conclude(folder: Path, pid: int, words: bytes) -> None:
    """Close the record of the attempt that process ``pid`` had begun, unless it did."""
    record = records.load(folder)
    if CLOSED in words or record.status not in ("running", "lost") or record.attempts[-1].pid != pid:
        return
    ends = written(folder).values()
    causes = [end for end in ends if not end.echo] or list(ends)
    status: Status = "interrupted" if ASKED in words and not causes else "failed"
    failure = (
        min(causes, key=lambda end: end.time).failure if causes else Failure(error=KILLED, host=socket.gethostname(), rank=0)
    )
    close(folder, status, failure if status == "failed" else None)


def main(folder: str, pid: str) -> int:
    """Wait, then conclude; the exit status."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    words = sys.stdin.buffer.read()
    try:
        conclude(Path(folder), int(pid), words)
    except ScalelabError:  # there is no such run any more
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
