"""The preloaded server: forks, exits, environments, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scalelab.errors import RunError
from scalelab.launch.failure import describe
from scalelab.launch.pool import Pool
from tests.waiting import SOON, ended, until


def test_a_forks_exit_status_is_heard(pool: Pool, tmp_path: Path) -> None:
    assert pool.wait(pool.start("os:_exit", [], log=tmp_path / "log")) == 1  # a call that fails: _exit needs an argument
    assert "TypeError" in (tmp_path / "log").read_text()
    assert pool.wait(pool.start("os:getpid_", [], log=tmp_path / "log2")) == 1
    assert "AttributeError" in (tmp_path / "log2").read_text()


def test_a_forks_environment_is_its_own(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text("import os\nprint(os.environ.get('ONLY_MINE'))\n")
    for value, name in (("1", "a"), (None, "b")):
        process = pool.start(
            "runpy:run_path", [str(tmp_path / "say.py")], {} if value is None else {"ONLY_MINE": value}, tmp_path / name
        )
        pool.wait(process)
    assert (tmp_path / "a").read_text().splitlines()[0] == "1"
    assert (tmp_path / "b").read_text().splitlines()[0] == "None"


def test_a_signal_is_told_by_name(pool: Pool) -> None:
    process = pool.start("time:sleep", [60])  # type: ignore[list-item]
    while process.pid is None:
        pool.poll(0.1)
    os.kill(process.pid, signal.SIGSEGV)
    assert "SIGSEGV" in describe(pool.wait(process))


def test_what_is_preloaded_is_imported_once_by_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be imported is left to the fork; what would end an interpreter does not end the server."""
    monkeypatch.setattr("scalelab.launch.pool.PRELOAD", ())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "seen.py").write_text(
        "import os\nprint('imported by', os.getpid())\ndef main(file): open(file, 'w').write('ran')\n"
    )
    (tmp_path / "broken.py").write_text("raise ImportError\n")
    (tmp_path / "ending.py").write_text("raise SystemExit(3)\n")
    with Pool() as own:
        for place in ("a", "b"):
            process = own.start(
                "seen:main", [str(tmp_path / place)], log=tmp_path / f"{place}.txt", preload=("broken", "ending", "seen")
            )
            assert own.wait(process) == 0
            assert (tmp_path / place).read_text() == "ran"
            assert (tmp_path / f"{place}.txt").read_text() == ""  # no fork imported it again


def test_end_ends_only_its_own(pool: Pool) -> None:
    mine, other = (pool.start("time:sleep", [60]) for _ in range(2))  # type: ignore[list-item]
    while mine.pid is None or other.pid is None:
        pool.poll(0.1)
    pool.end([mine])
    assert mine.status == -signal.SIGTERM
    pool.poll(0.1)
    assert other.status is None
    pool.end([other])
    assert other.status == -signal.SIGTERM


def test_a_fork_that_ignores_sigterm_is_killed(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen(__file__ + '.on', 'w')\ntime.sleep(60)\n"
    )
    process = pool.start("runpy:run_path", [str(tmp_path / "deaf.py")])
    while not (tmp_path / "deaf.py.on").exists():
        pool.poll(0.05)
    pool.end([process], grace=0.3)
    assert process.status == -signal.SIGKILL


def test_closing_ends_the_server_and_its_forks() -> None:
    with Pool() as own:
        process = own.start("time:sleep", [60])  # type: ignore[list-item]
        while process.pid is None:
            own.poll(0.1)
        began = time.monotonic()
    assert time.monotonic() - began < SOON  # it would sleep for a minute
    assert not Path(f"/proc/{process.pid}").exists()


def test_who_is_interrupted_does_not_wait_for_a_server_that_still_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalelab.launch.pool.PRELOAD", ("slow",))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    slow = "import pathlib, time\npathlib.Path(__file__).with_name('began').touch()\ntime.sleep(600)\n"
    (tmp_path / "slow.py").write_text(slow)
    with Pool() as own:
        process = own.start("os:getpid", [])
        until((tmp_path / "began").exists, "the import")
        assert own._server is not None
        server = own._server.pid
        own.end([process])
        assert ended(server)
        assert (process.pid, process.status) == (None, -signal.SIGKILL)
        monkeypatch.setattr("scalelab.launch.pool.PRELOAD", ())
        assert own.wait(own.start("builtins:int", ["3"])) == 3  # of another server


def test_a_server_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalelab.launch.pool.PRELOAD", ("no_such_module",))
    with Pool() as own, pytest.raises(RunError, match="worker server ended"):
        own.wait(own.start("os:getpid", []))


def test_a_server_dies_with_a_launcher_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import time\nfrom scalelab.launch.pool import Pool\npool = Pool()\nfork = pool.start('time:sleep', [60])\n"
        "while fork.pid is None:\n    pool.poll(0.1)\n"
        "print(fork.pid, pool._server.pid, flush=True)\ntime.sleep(60)\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    fork, server = launcher.stdout.readline().split()
    launcher.kill()
    launcher.communicate()
    until(lambda: ended(int(fork)) and ended(int(server)), "the end of both", SOON)


def test_forks_die_with_a_killed_server() -> None:
    with Pool() as own:
        fork = own.start("time:sleep", [60])  # type: ignore[list-item]
        while fork.pid is None:
            own.poll(0.1)
        assert own._server is not None
        own._server.kill()
        with pytest.raises(RunError, match="ended unexpectedly"):
            own.wait(fork)
        until(lambda: ended(fork.pid or 0), "its end", SOON)


def test_after_the_server_died_the_next_process_has_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both while a fork runs, which dies with it, and between two; what it imports is not to blame."""
    monkeypatch.setattr("scalelab.launch.pool.PRELOAD", ())
    with Pool() as own:
        running = own.start("time:sleep", [60])  # type: ignore[list-item]
        while running.pid is None:
            own.poll(0.1)
        _kill_server(own)
        with pytest.raises(RunError, match=r"ended unexpectedly$"):
            own.wait(running)
        assert running.status == -signal.SIGKILL
        own.end([running])
        assert own.wait(own.start("gc:disable", [])) == 0
        _kill_server(own)
        assert own.wait(own.start("gc:disable", [])) == 0


def _kill_server(pool: Pool) -> None:
    assert pool._server is not None
    pool._server.kill()
    os.waitid(os.P_PID, pool._server.pid, os.WEXITED | os.WNOWAIT)
