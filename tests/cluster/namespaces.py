"""Sets of Linux namespaces, each held by a process that is PID 1 in it and does nothing: kill it and all in it is gone.

``Popen`` objects made here are direct children of the caller, inside the namespaces: their ids, signals and exit statuses are real ones.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

CLONE_NEWPID = 0x20000000
NSENTER = shutil.which("nsenter") or "/usr/bin/nsenter"
UNSHARE = shutil.which("unshare") or "/usr/bin/unshare"
FRESH = ("--net", "--mount", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
STAY = "echo ready\nexec env --ignore-signal=CHLD sleep infinity\n"
"""the end of an init's script: with SIGCHLD ignored, the kernel itself buries every orphan that becomes its child"""

_libc = ctypes.CDLL(None, use_errno=True)
_switching = threading.Lock()


@dataclass(frozen=True)
class Space:
    """Namespaces of mounts, network, host name, IPC and processes; ``pid`` is their PID 1 as this process sees it."""

    pid: int
    holder: subprocess.Popen[str]

    @property
    def root(self) -> Path:
        """The file system as it looks in there."""
        return Path(f"/proc/{self.pid}/root")

    def path(self, inside: str | Path) -> Path:
        """A path of in there, for a process out here."""
        return self.root / str(inside).lstrip("/")

    def end(self) -> None:
        """Kill all processes in there. Those that this process started must be waited for by their owner."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # the kernel kills all others with PID 1; its parent, unshare, then ends too

    def gone(self) -> bool:
        """Whether PID 1 has ended, its processes with it."""
        return self.holder.poll() is not None


def create(script: str, parent: Space | None = None, tied: bool = False) -> Space:
    """New namespaces whose PID 1 runs a shell script first; inside ``parent`` where given.

    ``tied``: the kernel ends them when the calling thread ends, however it ends. Raises RuntimeError when the script fails.
    """
    line = [UNSHARE, *FRESH, "sh", "-euc", script + STAY]
    if tied:
        line = ["setpriv", "--pdeathsig", "KILL", *line]
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    holder = start(parent, line, **options) if parent else subprocess.Popen(line, start_new_session=True, **options)
    output, errors = _pipe(holder.stdout), _pipe(holder.stderr)
    said = output.readline()
    if said != "ready\n":
        holder.kill()
        raise RuntimeError(f"namespaces could not be made: {said}{errors.read()}")
    output.close()
    errors.close()
    (child,) = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
    return Space(int(child), holder)


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def start(space: Space, line: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """A process in all namespaces of ``space``, in a session of its own, working in /."""
    inside = [NSENTER, "--target", str(space.pid), "--mount", "--net", "--uts", "--ipc", "--", *line]
    with _born_in(space):
        return subprocess.Popen(inside, **{"start_new_session": True, "text": True, **options})


@contextmanager
def _born_in(space: Space) -> Iterator[None]:
    """Children of this thread become members of the PID namespace; nsenter would put a process of its own between."""
    with _switching:
        _children_in(f"/proc/{space.pid}/ns/pid")
        try:
            yield
        finally:
            _children_in("/proc/thread-self/ns/pid")


def _children_in(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())}: setns {namespace}")
    finally:
        os.close(descriptor)


def members(space: Space) -> list[int]:
    """Ids of the living processes of a PID namespace (not of those nested in it), PID 1 included."""
    wanted = os.readlink(f"/proc/{space.pid}/ns/pid")
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _lives_in(entry, wanted)]


def _lives_in(entry: Path, namespace: str) -> bool:
    try:
        if os.readlink(entry / "ns" / "pid") != namespace:
            return False
        state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended
        return False
    return state not in "ZX"
