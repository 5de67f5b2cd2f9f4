"""Which of the ranks' ends was the cause, and which were only its echo."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from scalelab.launch.launcher import Process
from scalelab.launch.signals import named
from scalelab.record.schema import Failure

NOISE = ("ActivityProfilerHandler.cpp", "The hostname of the client socket cannot be retrieved")
"""in lines of torch's own: the profiler's, written whatever its log level; of each connection from an address that no name service knows"""
ECHOES = (
    "connection closed", "connection reset", "connection was likely closed", "broken pipe", "nccl error", "remote process exited",
    "horovod has been shut down",
)  # fmt: skip
"""how gloo, NCCL, Horovod and the store say, in lower case, that another rank went away"""


WAITED = re.compile(r"timed?[- ]?out", re.IGNORECASE)
"""how gloo, NCCL and the store say that another rank did not come"""


@dataclass(frozen=True)
class End:
    """How one rank ended, and when: seconds since the epoch."""

    time: float
    failure: Failure
    echo: bool


def first_failure(folder: Path, processes: list[Process]) -> Failure:
    """The failure that came first, of those that are not the echo of another rank's end.

    A rank's written error has the time it was raised; the end of a rank that wrote nothing (killed, crashed, out of disk) has the
    time it was heard of. All are of one clock. ``processes[rank]`` is a rank's process; one of them must have failed. Where the
    others only gave up waiting for one that still runs, that one is told.
    """
    ends = written(folder)
    for rank, process in enumerate(processes):
        if process.status and rank not in ends:
            ends[rank] = End(process.ended or 0.0, unsaid(folder, rank, process), False)
    causes = [end for end in ends.values() if not end.echo]
    first = min(causes or ends.values(), key=lambda end: end.time).failure
    return _hung(processes, first) or first


def by_themselves(folder: Path, processes: Mapping[int, Process], left: Collection[int]) -> bool:
    """Whether any of these ranks has failed by itself, or was lost.

    Not meant: one that was asked to end, as Slurm asks ranks too; one whose own process was (``left``); one that only saw such a one go.
    """
    failed = {rank for rank, one in processes.items() if one.status and one.status != -signal.SIGTERM} - set(left)
    return bool(failed) and not (left and failed <= {rank for rank, end in written(folder).items() if end.echo})


def _hung(processes: list[Process], first: Failure) -> Failure | None:
    """The failure of the rank that the others gave up waiting for, while it still ran: it is the cause of theirs."""
    waiting = [rank for rank, process in enumerate(processes) if process.status is None]
    if not waiting or not WAITED.search(first.error):
        return None
    also = f" (as for rank{'s' * (len(waiting) > 2)} {', '.join(map(str, waiting[1:]))})" if len(waiting) > 1 else ""
    said = f"it hung: rank {first.rank} waited for it{also} until --timeout; where it stood is in its log, if it could still tell"
    return Failure(error=said, host=processes[waiting[0]].host, rank=waiting[0], expected=True)


def with_log(folder: Path, failure: Failure) -> Failure:
    """The failure with the end of its rank's log, where it has no traceback of its own."""
    if failure.traceback or failure.rank is None:
        return failure
    return msgspec.structs.replace(failure, traceback=tail(folder / "logs" / f"rank-{failure.rank}.txt"))


def written(folder: Path) -> dict[int, End]:
    """The failures that ranks left in the run's folder, by rank."""
    found = {}
    for path in (folder / "failures").glob("rank-*.json"):
        body = json.loads(path.read_text())
        time = datetime.fromisoformat(body.pop("time")).timestamp()
        failure = msgspec.convert(body, Failure)
        echo = any(words in failure.error.lower() for words in ECHOES)
        found[body["rank"]] = End(time, failure, echo)
    return found


def unsaid(folder: Path, rank: int, process: Process) -> Failure:
    """The end of a rank that wrote no failure: on a full disk, because it could not."""
    status = process.status or 0
    full = disk_error(folder) if status > 0 and process.error is None else None
    log = folder / "logs" / f"rank-{rank}.txt"
    return Failure(
        error=process.error or full or f"ended with {describe(status)}", host=process.host, rank=rank, traceback=tail(log),
        expected=process.error is not None or full is not None,
    )  # fmt: skip


def disk_error(folder: Path) -> str | None:
    """Why nothing can be written to a run's folder; None when it can."""
    probe = folder / "failures" / ".probe.tmp"
    try:
        probe.write_bytes(bytes(4096))
    except OSError as error:
        return f"{folder}: cannot be written: {error.strerror}; free some space or choose another --out"
    finally:
        probe.unlink(missing_ok=True)
    return None


def is_noise(line: str) -> bool:
    """Whether a line of a rank's log says nothing to anybody."""
    return any(part in line for part in NOISE)


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    name = named(-status)
    hint = ": often the kernel's, out of memory; lower --micro-batch or spread it with zero3" if name == "SIGKILL" else ""
    return f"signal {-status} ({name}{hint})"


def tail(log: Path, lines: int = 40) -> str:
    """The last lines of a log."""
    try:
        said = [line for line in log.read_text(errors="replace").splitlines() if not is_noise(line)]
        return "\n".join(said[-lines:])
    except OSError:
        return ""
