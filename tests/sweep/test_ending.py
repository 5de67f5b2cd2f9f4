"""A sweep that is broken off: nothing of it lives on, what is completed is kept, the rest is run later."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from scalelab.sweep import keeping
from tests.sweep.conftest import Sweep
from tests.trainings import processes_of, start
from tests.waiting import SOON, ended, until

CHILD = "import subprocess, sys, time; subprocess.Popen(['sleep', sys.argv[1]]); open('began', 'a').write('x'); time.sleep(60)"


def done(folder: Path) -> list[int]:
    """The tasks that are completed."""
    return sorted(task for task, record in keeping.results(folder).items() if record.status == "completed")


def test_kill_9_in_the_middle_of_200_tasks(sweep: Sweep, tmp_path: Path) -> None:
    program = "test {n} -lt 100 || test -e go || exec sleep 71; echo {n} >> log; echo x {n}"
    (tmp_path / "tasks.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(200)))
    words = ["--list", "tasks.csv", "--metric", r"x=x (\d+)", "--jobs", 4, "--out", "s"]
    child = start("sweep", *words, "--", "sh", "-c", program, cwd=tmp_path)
    until(lambda: len(list((tmp_path / "s/tasks").glob("[0-9]*.out"))) == 104)  # 100 have ended, four wait
    child.kill()
    child.communicate()
    until(lambda: not processes_of(str(tmp_path)), "the end of all processes", SOON)
    before = done(tmp_path / "s")
    assert before == list(range(100))
    assert json.loads(sweep("status", "s", "--json").out)["interrupted"] == 4
    (tmp_path / "go").touch()
    ended = sweep("resume", "s", "--json")
    assert (ended.status, json.loads(ended.out)["completed"]) == (0, 200)
    assert "100 of 200 tasks are to be run" in ended.err
    ran = [int(word) for word in (tmp_path / "log").read_text().split()]
    assert sorted(set(ran)) == list(range(200))
    assert [ran.count(task) for task in before] == [1] * len(before)


def test_what_a_killed_launcher_left_has_ended_before_a_task_begins_again(sweep: Sweep, tmp_path: Path) -> None:
    deaf = "test -e deaf && exec echo again; trap '' TERM; touch deaf; while :; do sleep 0.05; done"
    child = start("sweep", "--out", "s", "--", "sh", "-c", deaf, cwd=tmp_path)
    until(lambda: (tmp_path / "deaf").exists())
    child.kill()
    child.communicate()
    assert sweep("resume", "s").status == 0  # at once: the old runner still waits for its task to end
    until(lambda: not processes_of(str(tmp_path)), "the end of all processes", SOON)
    assert (tmp_path / "s/tasks/0.out").read_text() == "again\n"
    assert done(tmp_path / "s") == [0]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_running_tasks_and_says_how_to_go_on(tmp_path: Path, how: int, sweep: Sweep) -> None:
    words = ["--grid", "t=0,71.25", "--jobs", 2, "--out", "s"]
    program = f"import sys; print('ok') if sys.argv[1] == '0' else exec({CHILD!r})"
    child = start("sweep", *words, "--", sys.executable, "-S", "-c", program, "{t}", cwd=tmp_path)
    until(lambda: (tmp_path / "began").exists() and done(tmp_path / "s") == [0])
    child.send_signal(how)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "1 of 2 tasks are completed and kept; `scalelab sweep resume s` runs the rest" in said
    assert "Traceback" not in said
    assert not processes_of(str(tmp_path))
    assert keeping.results(tmp_path / "s")[1].status == "interrupted"
    assert json.loads(sweep("status", "s", "--json").out)["interrupted"] == 1


def test_what_a_task_started_ends_with_it(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("--out", "s", "--", "sh", "-c", "sleep 71.5 & echo $!").status == 0
    (pid,) = map(int, (tmp_path / "s/tasks/0.out").read_text().split())
    until(lambda: ended(pid), "the end of what the task started", SOON)


def test_a_running_sweep_is_seen_and_cancelled_from_elsewhere(sweep: Sweep, tmp_path: Path) -> None:
    child = start("sweep", "--grid", "t=71,72,73", "--jobs", 2, "--out", "s", "--", "sleep", "{t}", cwd=tmp_path)
    until(lambda: (tmp_path / "s/tasks/1.json").exists())
    told = json.loads(sweep("status", "s", "--json").out)
    assert (told["running"], told["queued"]) == (2, 1)
    assert f"process {child.pid} is running this sweep now" in sweep("resume", "s").error
    ended = sweep("cancel", "s", "--json")
    child.communicate(timeout=60)
    assert child.returncode == 130
    told = json.loads(ended.out)
    assert (told["interrupted"], told["missing"], told["running"]) == (2, 1, 0)
    assert not processes_of(str(tmp_path / "s"))


def test_a_runner_that_is_killed_takes_its_tasks_and_what_they_started_with_it(sweep: Sweep, tmp_path: Path) -> None:
    child = start("sweep", "--out", "s", "--", "sh", "-c", "sleep 71.75; true", cwd=tmp_path)
    until(_sleeping)
    (runner,) = [pid for pid in processes_of("scalelab.sweep.task") if _parent(pid) == child.pid]
    os.kill(runner, signal.SIGKILL)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "it ended with -9" in said
    until(lambda: not _sleeping(), "the end of the task", SOON)
    assert json.loads(sweep("status", "s", "--json").out)["lost"] == 1


def _sleeping() -> list[int]:
    found = []
    for pid in processes_of("71.75"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
                found.append(pid)
    return found


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # another test run's, which has ended meanwhile
        return None
