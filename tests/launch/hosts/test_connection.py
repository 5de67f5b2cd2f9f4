"""The launcher's end of an agent, over an ``ssh`` that runs its command on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.hosts import connection
from scalelab.launch.hosts.connection import Agent, Lost
from scalelab.launch.hosts.hub import Hub, Unreachable
from scalelab.launch.hosts.placement import Place
from scalelab.spec import from_mapping
from tests.waiting import PATIENCE, until

LOCAL = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift 2
exec sh -c "$1"
"""
Connect = Callable[..., Agent]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that ``ssh`` means; a test may write another."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(LOCAL)
    program.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv(
        "TORCHINDUCTOR_CACHE_DIR", raising=False
    )  # torch sets it in a process that has compiled: an earlier test's
    return program


@pytest.fixture
def agent(ssh: Path) -> Iterator[Connect]:
    agents = []

    def connect(place: Place | None = None, **options: Any) -> Agent:
        agents.append(Agent(place or Place("h1"), "abc123", (), lambda *said: None, options.get("say", lambda line: None)))
        agents[-1].connect(str(ssh.parent))
        return agents[-1]

    yield connect
    for one in agents:
        one.close()


def test_an_agent_tells_of_its_host_and_leaves_nothing(agent: Connect, tmp_path: Path) -> None:
    found = agent(Place("h1", env={"SPECIAL": "v 'alue\n"}))
    assert found.hello["host"]["cores"] > 0
    assert found.hello["cwd"] == str(tmp_path / "bin")
    assert abs(found.clock[0]) <= found.clock[1] < 1  # it is the same clock
    process = psutil.Process(found.hello["pid"])
    assert process.cmdline()[-2:] == ["scalelab.launch.hosts.agent", "abc123"]
    assert list((tmp_path / "tmp").glob("scalelab-agent-*"))
    found.close()
    process.wait(PATIENCE)
    assert not list((tmp_path / "tmp").glob("scalelab-*"))


def test_what_torch_keeps_goes_with_the_agent_unless_the_user_says_where(agent: Connect) -> None:
    name = "TORCHINDUCTOR_CACHE_DIR"
    for env, kept in (({}, "{}/.compiled"), ({name: "/kept"}, "/kept")):
        found = agent(Place("h1", env=env))
        found.request({"do": "warm"})
        (server,) = psutil.Process(found.hello["pid"]).children()
        until(server.environ, "the server's start")  # empty until it has become its program
        assert server.environ().get(name) == kept.format(found.hello["scratch"])
        found.close()


def test_what_a_login_shell_says_first_is_skipped(agent: Connect, ssh: Path) -> None:
    ssh.write_text(LOCAL.replace("exec", "echo 'Welcome to h1'; echo 'scalelab agent of old'; printf 'no line end'; exec"))
    assert agent().hello["pid"]


def test_what_processes_say_on_stderr_is_shown_with_their_host(agent: Connect, ssh: Path) -> None:
    lines: list[str] = []
    ssh.write_text(LOCAL.replace("exec", "(sleep 2; echo late >&2) & exec"))
    found = agent(say=lines.append)
    until(lambda: found.request({"do": "time"}) and lines, "what was said late")
    assert lines == ["h1 | late"]


def test_an_error_of_the_agent_is_raised_here(agent: Connect) -> None:
    found = agent()
    with pytest.raises(ScalelabError, match=r"'\.\./x' is not the name of a run"):
        found.request({"do": "begin", "run": "../x"})
    with pytest.raises(ScalelabError, match="nonesuch"):
        found.request({"do": "nonesuch"})
    with pytest.raises(ScalelabError, match="which is no file of a run"):
        found.request({"do": "put", "run": "r", "path": "../x", "at": 0, "last": True})
    assert found.request({"do": "time"})["now"] > 0  # it lives on


def test_a_killed_agent_is_lost_to_all_who_wait_and_the_next_clears_up_after_it(agent: Connect, tmp_path: Path) -> None:
    found = agent()
    os.kill(found.hello["pid"], signal.SIGSTOP)
    waiting: Future[dict[str, Any]] = found.post({"do": "digests", "names": []})
    os.kill(found.hello["pid"], signal.SIGKILL)
    with pytest.raises(Lost, match="h1: the connection to it ended"):
        waiting.result(PATIENCE)
    with pytest.raises(Lost):
        found.request({"do": "time"})
    left = list((tmp_path / "tmp").glob("scalelab-agent-*"))
    assert len(left) == 1
    agent()
    assert not left[0].exists()


def test_an_agent_that_is_told_to_end_more_than_once_ends(agent: Connect, tmp_path: Path) -> None:
    process = psutil.Process(agent().hello["pid"])
    with contextlib.suppress(psutil.NoSuchProcess):
        for _ in range(50):
            process.terminate()
            time.sleep(0.001)
    process.wait(PATIENCE)
    assert not list((tmp_path / "tmp").glob("scalelab-*"))


def test_what_an_agent_that_is_killed_while_it_is_asked_leaves_is_cleared_up_by_the_next(agent: Connect, tmp_path: Path) -> None:
    found = agent()
    question = {"do": "ask", "target": "tests.launch.idling:idle", "doing": "checking", "env": {}}
    found.post(question, msgspec.json.encode(from_mapping({})))
    until(lambda: list((tmp_path / "tmp").rglob("spec.yaml")), "the question")
    os.kill(found.hello["pid"], signal.SIGKILL)
    agent().close()
    assert not list((tmp_path / "tmp").glob("scalelab-*"))


STOPPED = """
import sys, time
from scalelab.launch.hosts import connection
from scalelab.launch.hosts.hub import Hub
from scalelab.launch.hosts.placement import Place
connection.SILENT = 1.0
hub = Hub()
(agent,) = hub.connected([Place("h1")])
agent.be_patient(1.0)
print(agent.hello["pid"], flush=True)
sys.stdin.readline()
agent.check()
print(agent.lost, agent.request({"do": "time"})["now"] > 0, flush=True)
hub.close()
"""


def test_the_hosts_wait_for_a_launcher_that_is_stopped_by_ctrl_z(ssh: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", STOPPED], process_group=0, **pipes) as launcher:
        there = psutil.Process(int(launcher.stdout.readline()))
        launcher.send_signal(signal.SIGTSTP)
        until(lambda: psutil.Process(launcher.pid).status() == psutil.STATUS_STOPPED, "its stop")
        time.sleep(2.5)
        assert there.is_running()
        launcher.send_signal(signal.SIGCONT)
        assert launcher.communicate("\n", timeout=PATIENCE)[0] == "None True\n"
    there.wait(PATIENCE)


def test_an_agent_that_hears_nothing_says_so_when_it_ends_its_ranks_and_no_traceback(agent: Connect, ssh: Path) -> None:
    ssh.write_text(LOCAL.replace("exec sh", "sh"))  # killing ssh does not kill what runs on another host
    (ssh.parent / "slow.py").write_text("import time\ntime.sleep(60)\n")  # the rank is still to come
    lines: list[str] = []
    found = agent(say=lines.append)
    found.request({"do": "begin", "run": "r"})
    found.request({"do": "start", "run": "r", "training": 1, "ranks": {"0": {}}, "given": [], "preload": ["slow"], "port": None})
    found.be_patient(0.2)  # less than the time between two signs of life
    psutil.Process(found.hello["pid"]).wait(PATIENCE)
    found._listener.join(PATIENCE)
    assert found.lost is not None
    assert found.lost.startswith("it heard nothing from here for 0.2 seconds, and ended its ranks")
    assert lines == []


def test_an_agent_that_goes_silent_is_lost(agent: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    found = agent()
    monkeypatch.setattr(connection, "SILENT", 0.2)
    os.kill(found.hello["pid"], signal.SIGSTOP)
    until(lambda: found.check() or found.lost, "the silence")
    assert found.lost is not None
    assert found.lost.startswith("no sign of life for 0.2 seconds")
    os.kill(found.hello["pid"], signal.SIGCONT)  # and ends, now that its line is closed
    psutil.Process(found.hello["pid"]).wait(PATIENCE)


def test_all_hosts_that_cannot_be_reached_are_told_in_their_own_words(ssh: Path) -> None:
    ssh.write_text('#!/bin/sh\necho "ssh: connect to host $7 port 22: No route to host" >&2\nexit 255\n')
    hub = Hub()
    with pytest.raises(Unreachable) as raised:
        hub.connected([Place("h1"), Place("h2")])
    hub.close()
    assert raised.value.faults == {host: f"ssh: connect to host {host} port 22: No route to host" for host in ("h1", "h2")}


def test_an_interpreter_that_is_not_there(ssh: Path) -> None:
    hub = Hub()
    with pytest.raises(Unreachable, match=r"/no/such python'?: (No such file|not found)"):
        hub.connected([Place("h1", python="/no/such python")])
    hub.close()


def test_an_interpreter_that_is_none(ssh: Path) -> None:
    hub = Hub()
    with pytest.raises(Unreachable, match=r"h1: /bin/true there ended with exit status 0, without a word"):
        hub.connected([Place("h1", python="/bin/true")])
    hub.close()


def test_an_agent_looks_at_the_tmpdir_that_it_was_given(agent: Connect, tmp_path: Path) -> None:
    found = agent(Place("h1", env={"TMPDIR": str(tmp_path / "nothere")}))
    seen = found.request({"do": "look", "spec": msgspec.to_builtins(from_mapping({}))})["answer"]
    assert seen["tmpdir"] == f"{tmp_path}/nothere: No such file or directory"


def test_nothing_of_a_user_is_in_the_command_but_the_interpreter_which_is_quoted() -> None:
    place = Place("h1", python="/opt/my env/$(x)'/python", port=2222, data_dir="/d", env={"A": "b"})
    line = connection.command(place, "abc123", ["-F", "my config"])
    assert line[:3] == ["ssh", "-F", "my config"]
    assert line[-5:-1] == ["-p", "2222", "--", "h1"]
    assert line[-1] == "exec '/opt/my env/$(x)'\"'\"'/python' -m scalelab.launch.hosts.agent abc123"
