"""The process that runs tasks, seen from the one that launches it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.hosts import channel
from scalelab.launch.hosts.placement import Place
from scalelab.sweep import crew, running
from scalelab.sweep.crew import Crew
from scalelab.sweep.job import Job
from tests.waiting import until

TOLD: dict[str, Any] = {"folder": None, "silence": 30.0, "jobs": 2, "cpus_per_task": None, "gpus_per_task": None}


def made(folder: Path, *command: str) -> Crew:
    """A crew as on another host: what it writes comes back."""
    (folder / "tasks").mkdir()
    return Crew("there", command or crew.here(), TOLD, folder)


class Seen:
    """Who is told."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def ready(self) -> None: ...

    def began(self, record: dict[str, Any]) -> None: ...

    def ended(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def lost(self, crew: Crew) -> None: ...

    def tick(self) -> None: ...


def test_what_start_up_files_print_does_not_matter(tmp_path: Path) -> None:
    greeting = f"echo 'Welcome {{\"a\"}}'; exec {shlex.join(crew.here())}"
    one = made(tmp_path, "sh", "-c", greeting)
    running.greet([one])
    seen = Seen()
    running.carry_out([one], [Job(0, ("echo", "hi"), str(tmp_path))], seen)
    one.close()
    assert [record["status"] for record in seen.records] == ["completed"]
    assert (tmp_path / "tasks/0.out").read_text() == "hi\n"


def test_much_output_comes_back_whole(tmp_path: Path) -> None:
    one = made(tmp_path)
    running.greet([one])
    program = "import sys; [sys.stdout.write(f'{n:09d}\\n') for n in range(250_000)]"
    running.carry_out([one], [Job(0, (sys.executable, "-S", "-c", program), str(tmp_path))], Seen())
    one.close()
    lines = (tmp_path / "tasks/0.out").read_text().splitlines()
    assert (len(lines), lines[-1]) == (250_000, "000249999")


@pytest.mark.parametrize(
    ("command", "said"), [("echo no such host >&2; exit 255", "there: no such host"), ("exit 3", "there: it ended with 3")]
)
def test_a_crew_that_does_not_come_up_is_named_with_its_own_words(tmp_path: Path, command: str, said: str) -> None:
    one = made(tmp_path, "sh", "-c", command)
    with pytest.raises(ScalelabError, match=said):
        running.greet([one])
    one.close()


def test_it_ends_when_it_is_not_spoken_to_any_more(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    one = Crew("there", crew.here(), TOLD | {"silence": 0.5}, tmp_path)  # a sign of life comes every two seconds
    running.greet([one])
    one.run(Job(0, ("sleep", "60"), str(tmp_path)))
    while one.gone is None:  # the task alone would take a minute
        one.hear()
    one.close()
    assert '"the launching host was not heard any more"' in (tmp_path / "tasks/0.json").read_text()


def test_no_word_of_a_user_is_in_the_command_of_ssh_but_quoted() -> None:
    line = crew.there(Place("h1", port=2222, python="/opt/my env/bin/python; id"))
    assert line[-4:-1] == ["2222", "--", "h1"]
    assert shlex.split(line[-1]) == ["exec", "/opt/my env/bin/python; id", "-P", "-m", "scalelab.sweep.task", "--serve"]


def test_a_launcher_that_ctrl_z_stopped_finds_its_tasks_going_on(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    program = (
        "import sys; from scalelab import cli; from scalelab.launch.hosts import channel; from scalelab.sweep import placing\n"
        "channel.PING, placing.SILENT = 0.2, 2.5; cli.main(sys.argv[1:])"
    )
    words = ["sweep", "--hosts", "h1:1", "--out", "s", "--", "sh", "-c", "touch begun; sleep 6"]
    child = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=tmp_path,
        process_group=0,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    try:
        until((tmp_path / "begun").exists, "the task")
        child.send_signal(signal.SIGTSTP)
        time.sleep(4)
        child.send_signal(signal.SIGCONT)
        assert child.wait(60) == 0
        assert json.loads((tmp_path / "s/tasks/0.json").read_text())["status"] == "completed"
    finally:
        child.kill()
        child.wait()


def test_time_in_which_nobody_listens_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "PING", 0.2)
    (tmp_path / "tasks").mkdir()
    one = Crew("there", crew.here(), TOLD | {"silence": 1.5}, tmp_path)
    running.greet([one])
    program = "import sys; sys.stdout.write('x' * 3_000_000)"
    one.run(Job(0, (sys.executable, "-S", "-c", program), str(tmp_path)))
    one.run(Job(1, ("sleep", "4"), str(tmp_path)))
    time.sleep(3)  # a slow disk here: what it sends waits
    status: dict[int, str] = {}
    while status.get(1, "running") == "running":
        status |= {record["task"]: record["status"] for record in one.hear()}
    one.close()
    assert status == {0: "completed", 1: "completed"}
