"""Which rank's end is told: the cause, not its echo."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from scalelab.launch.failure import first_failure, with_log
from scalelab.launch.launcher import Process
from scalelab.record import folder as records
from scalelab.record.schema import Failure

CLOSED = "RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return records.create(tmp_path, "run")


def write(folder: Path, rank: int, error: str) -> None:
    records.write_failure(folder, rank, Failure(error=error, rank=rank))
    time.sleep(0.002)  # times are written to the millisecond


def dead(rank: int, number: int, after: float = 0.0) -> Process:
    """A rank whose death by a signal is heard now, or ``after`` seconds from now (before now: negative)."""
    return Process(rank, status=-number, ended=time.time() + after)


def test_a_rank_that_aborts_after_anothers_error_is_its_echo(folder: Path) -> None:
    write(folder, 0, "ValueError: the bug")
    found = first_failure(folder, [Process(0, status=1, ended=time.time()), dead(1, signal.SIGABRT, 0.3)])
    assert (found.rank, found.error) == (0, "ValueError: the bug")


@pytest.mark.parametrize("after", [-0.3, 0.3])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_a_killed_rank_is_the_cause_of_closed_connections(folder: Path, number: signal.Signals, after: float) -> None:
    write(folder, 0, CLOSED)
    found = first_failure(folder, [Process(0, status=1, ended=time.time()), dead(1, number, after)])
    assert found.rank == 1
    assert number.name in found.error


@pytest.mark.parametrize(
    "error", ["DistBackendError: NCCL error: remote process exited", "ConnectionResetError: Connection reset"]
)
def test_other_words_for_a_lost_connection(folder: Path, error: str) -> None:
    write(folder, 0, error)
    assert first_failure(folder, [Process(0, status=1, ended=time.time()), dead(1, signal.SIGKILL, 0.2)]).rank == 1


def test_an_error_before_a_death_is_the_cause(folder: Path) -> None:
    write(folder, 0, "ValueError: the bug")
    write(folder, 2, CLOSED)
    processes = [Process(0, status=1, ended=time.time()), dead(1, signal.SIGKILL), Process(2, status=1, ended=time.time())]
    assert first_failure(folder, processes).rank == 0


def test_a_death_before_an_error_is_the_cause(folder: Path) -> None:
    killed = dead(1, signal.SIGKILL, -0.2)
    write(folder, 0, "ValueError: no batch came")
    assert first_failure(folder, [Process(0, status=1, ended=time.time()), killed]).rank == 1


def test_the_earliest_where_all_lost_their_connections(folder: Path) -> None:
    write(folder, 1, CLOSED)
    write(folder, 0, CLOSED)
    assert first_failure(folder, [Process(r, status=1, ended=time.time()) for r in range(2)]).rank == 1


def test_a_rank_that_the_others_gave_up_waiting_for_is_the_cause(folder: Path) -> None:
    write(
        folder,
        0,
        "RuntimeError: [gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 6000ms for recv operation to complete",
    )
    write(folder, 2, CLOSED)
    processes = [Process(0, status=1, ended=time.time()), Process(1, host="h2"), Process(2, status=1, ended=time.time())]
    found = first_failure(folder, processes)
    assert (found.rank, found.host) == (1, "h2")
    assert found.error.startswith("it hung: rank 0 waited for it until --timeout")
    (folder / "logs" / "rank-1.txt").write_text("where it stood\n")
    assert with_log(folder, found).traceback == "where it stood"


def test_a_rank_that_still_runs_is_not_to_blame_for_anothers_bug(folder: Path) -> None:
    write(folder, 0, "ValueError: the bug")
    assert first_failure(folder, [Process(0, status=1, ended=time.time()), Process(1)]).rank == 0
