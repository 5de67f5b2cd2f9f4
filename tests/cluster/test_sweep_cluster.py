"""Sweeps on the test cluster: over ssh, and as Slurm arrays, with what breaks on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.bounds import BOUND
from tests.cluster.cluster import Cluster
from tests.cluster.host import Host
from tests.cluster.places import HOME
from tests.cluster.slurm import Settings
from tests.sweep.test_local import ODD
from tests.waiting import PATIENCE, until

SHOW = ("python3", "-S", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", "{x}")


def sweep(host: Host, folder: Path, *words: object) -> tuple[int, Any, str]:
    """``scalelab sweep WORDS --json`` on a host, in ``folder``: exit status, document, what it said."""
    parted = [*map(str, words)]
    place = parted.index("--") if "--" in parted else len(parted)
    done = host.run(["scalelab", "sweep", *parted[:place], "--json", *parted[place:]], cwd=folder)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def task(folder: Path, number: int) -> dict[str, Any]:
    """What a task's record says."""
    found: dict[str, Any] = json.loads((folder / "tasks" / f"{number}.json").read_bytes())
    return found


def idle(cluster: Cluster) -> None:
    """No host runs anything any more."""
    for host in (cluster.h0, *cluster.hosts.values()):
        if host.on:
            host.idle()


def arguments_arrived(folder: Path) -> None:
    for number, value in enumerate(ODD):
        assert json.loads((folder / f"tasks/{number}.out").read_text()) == [value]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A list of arguments that a shell could spoil."""
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps({"x": value}) + "\n" for value in ODD))
    return path


def test_over_ssh_without_a_shared_folder(cluster: Cluster, odd: Path) -> None:
    own = Path(HOME) / "s"  # which each host has for itself
    words = ["--list", odd, "--hosts", "h1:2,h2", "--metric", r"n=(\d+)$", "--env", "COLOUR=red", "--out", own]
    program = "import json, os, sys; print(json.dumps(sys.argv[1:]), flush=True); print(os.environ['COLOUR'], len(sys.argv[1]))"
    status, told, said = sweep(cluster.h0, Path(HOME), *words, "--", *SHOW[:3], program, "{x}")
    assert (status, told["completed"]) == (0, len(ODD)), said
    seen = cluster.h0.path(own)
    hosts = Counter(task(seen, number)["host"] for number in range(len(ODD)))
    assert set(hosts) == {"h1", "h2"}
    for number, value in enumerate(ODD):
        lines = (seen / f"tasks/{number}.out").read_text().splitlines()
        assert (json.loads(lines[0]), lines[1]) == ([value], f"red {len(value)}")
        assert task(seen, number)["metrics"] == {"n": len(value)}
    assert not any(cluster.hosts[name].path(own).exists() for name in ("h1", "h2"))
    assert not list(cluster.hosts["h1"].path(cluster.h0.environment()["TMPDIR"]).glob("scalelab-sweep-*"))
    idle(cluster)


def test_hosts_that_are_not_fit_are_all_named_before_anything_starts(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.h0.run(["scalelab", "sweep", "--hosts", "h1,nohost,h9", "--out", "s", "--", "touch", "began"], cwd=tmp_path)
    assert done.returncode == 2
    assert "nohost: " in done.stderr
    assert "h9: " in done.stderr
    assert "h1: " not in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    idle(cluster)


def test_a_host_that_is_lost_and_a_launcher_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    line = ["scalelab", "sweep", "--grid", "t=0.2,600,601,0.3", "--hosts", "h1,h2", "--out", "s", "--", "sleep", "{t}"]
    child = cluster.h0.start(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: _running(tmp_path / "s") == 2 and (tmp_path / "s/tasks/2.json").exists(), "both long tasks")
    lost = task(tmp_path / "s", 1)["host"]
    cluster.hosts[lost].kill(r"sshd.*notty")
    cluster.hosts[lost].idle()  # what ran there has ended
    other = next(name for name in ("h1", "h2") if name != lost)
    until(lambda: bool(cluster.hosts[other].kill("sleep 601", signal.SIGTERM)), "the other's long task")
    until(lambda: task(tmp_path / "s", 1).get("host") == other, "the lost task on the other host")
    child.kill()
    child.wait()
    idle(cluster)
    status, told, _ = sweep(cluster.h0, tmp_path, "status", "s")
    assert (status, told["running"], told["lost"]) == (1, 0, 1)
    assert told["failed"] == 1
    assert "ended by SIGTERM" in str(told["failures"])


def test_a_cable_that_is_cut_ends_the_tasks_behind_it_and_others_take_them_on(cluster: Cluster, tmp_path: Path) -> None:
    line = ["scalelab", "sweep", "--grid", "t=2,600", "--hosts", "h1,h2", "--out", "s", "--json", "--", "sh", "-c"]
    program = "test -e began-{t} || { touch began-{t}; sleep {t}; }"
    child = cluster.h0.start([*line, program.replace("{ ", "{{ ").replace(" }", " }}")], cwd=tmp_path, stdout=subprocess.PIPE)
    until(lambda: (tmp_path / "began-600").exists() and (tmp_path / "s/tasks/1.json").exists(), "both tasks")
    cut = cluster.hosts[task(tmp_path / "s", 1)["host"]]
    cut.cut()
    try:
        until(lambda: all("sshd" in one.command for one in cut.processes()), "the end of the task behind the cut cable", BOUND)
        out, _ = child.communicate(timeout=BOUND)
    finally:
        cut.mend()
        cut.kill("sshd.*notty")  # its own, which still waits for the other end
    assert json.loads(out)["completed"] == 2
    assert task(tmp_path / "s", 1)["host"] != cut.name


def _running(folder: Path) -> int:
    records = [json.loads(path.read_bytes()) for path in folder.glob("tasks/*.json") if not path.name.startswith(".")]
    return sum(record["status"] == "running" for record in records)


def test_an_array_and_its_one_question_to_slurm(slurm: Cluster, tmp_path: Path, odd: Path) -> None:
    folder = tmp_path / "it's a 'place'; echo $HOME"
    folder.mkdir()
    words = ["--list", odd, "--slurm", "--max-running", 6, "--wait", "--out", "s p", "--slurm-arg=--mem=100M"]
    status, told, said = sweep(slurm.h0, folder, *words, "--", *SHOW)
    assert (status, told["completed"]) == (0, len(ODD)), said
    arguments_arrived(folder / "s p")
    assert {task(folder / "s p", number)["slurm"]["array"] for number in range(len(ODD))} == {
        said.split("array ")[1].split(":")[0]
    }
    assert "#SBATCH --mem=100M" in (folder / "s p/slurm/array-1.sh").read_text()
    calls = _counted(slurm.h0, folder)
    assert (
        slurm.h0.run(["scalelab", "sweep", "status", "s p"], cwd=folder, env={"PATH": f"{folder}:{_path(slurm.h0)}"}).returncode
        == 0
    )
    assert calls.read_text().split() == ["squeue"]


def _counted(host: Host, folder: Path) -> Path:
    """Programs before Slurm's own that note that they were called; the file with the notes."""
    for name in ("squeue", "sacct", "scontrol", "sbatch"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} >> "${{0%/*}}/calls"\nexec /usr/bin/{name} "$@"\n')
        (folder / name).chmod(0o755)
    return folder / "calls"


def _path(host: Host) -> str:
    return host.environment()["PATH"]


def test_a_failed_task_in_an_array_is_run_again_alone(slurm: Cluster, tmp_path: Path) -> None:
    program = "test {x} != b || test -e mended || exit 3; echo {x} >> log"
    status, told, _ = sweep(slurm.h0, tmp_path, "--grid", "x=a,b,c", "--slurm", "--wait", "--out", "s", "--", "sh", "-c", program)
    assert (status, told["completed"], told["failed"]) == (1, 2, 1)
    (tmp_path / "mended").touch()
    status, told, said = sweep(slurm.h0, tmp_path, "resume", "s", "--wait")
    assert (status, told["completed"]) == (0, 3)
    assert "1 task" in said
    assert "failed" not in said  # what failed before is not told again
    assert sorted((tmp_path / "log").read_text().split()) == ["a", "b", "c"]


def test_requeued_and_cancelled_tasks(slurm: Cluster, tmp_path: Path) -> None:
    words = ["--grid", "t=600,601", "--slurm", "--out", "s"]
    program = "test -e tasks-{t} && exit 0; touch tasks-{t}; exec sleep {t}"
    status, _, said = sweep(slurm.h0, tmp_path, *words, "--", "sh", "-c", program)
    assert status == 0, said
    until(lambda: (tmp_path / "tasks-600").exists() and (tmp_path / "tasks-601").exists(), "two tasks")
    job = task(tmp_path / "s", 0)["slurm"]["job"]
    slurm.h0.run(["scontrol", "requeue", job], check=True)
    until(lambda: task(tmp_path / "s", 0)["status"] == "completed", "the requeued task again")
    assert task(tmp_path / "s", 0)["slurm"]["restarts"] == "1"
    status, told, _ = sweep(slurm.h0, tmp_path, "cancel", "s")
    assert (status, told["completed"], told["running"], told["queued"]) == (0, 1, 0, 0)
    assert told["interrupted"] >= 1
    assert "cancelled, preempted, or out of time" in str(told["failures"])


def test_more_tasks_than_an_array_may_have_while_slurmctld_is_restarted(fresh: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = fresh(slurm=True, settings=Settings(max_array=9))
    line = ["scalelab", "sweep", "--repeats", "25", "--max-running", "6", "--slurm", "--wait", "--out", "s", "--json"]
    program = ["sh", "-c", "sleep 0.4; echo {task}"]
    child = cluster.h0.start([*line, "--", *program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: len(list((tmp_path / "s/tasks").glob("[0-9]*.json"))) > 7, "the second array's tasks, or nearly")
    cluster.stop_slurmctld()
    until(lambda: _running(tmp_path / "s") == 0, "the end of what ran")
    cluster.start_slurmctld()
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, err
    assert json.loads(out)["completed"] == 25
    assert err.count("Slurm array") == 3
    assert [(tmp_path / f"s/tasks/{number}.out").read_text() for number in range(25)] == [f"{number}\n" for number in range(25)]


def test_what_the_site_does_not_take_at_once_is_submitted_later(fresh: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = fresh(accounting=True, hosts=("h1", "h2"), settings=Settings(max_submit=8))
    program = ["sh", "-c", "until test -e go; do sleep 0.2; done; echo {task}"]
    status, told, said = sweep(cluster.h0, tmp_path, "--repeats", 20, "--slurm", "--out", "s", "--", *program)
    assert status == 0, said
    assert "of 20 tasks are not submitted yet: sbatch: AssocMaxSubmitJobLimit" in said
    assert told["missing"] + told["queued"] + told["running"] + told["completed"] == 20
    assert told["missing"] >= 12
    line = ["scalelab", "sweep", "resume", "s", "--wait"]
    child = cluster.h0.start(line, cwd=tmp_path, stderr=subprocess.PIPE)
    until(lambda: len((tmp_path / "s/slurm/submitted.jsonl").read_text().splitlines()) > 1, "a second array")
    child.kill()  # the submitting machine dies
    child.wait()
    (tmp_path / "go").touch()
    status, told, said = sweep(cluster.h0, tmp_path, "resume", "s", "--wait")
    assert (status, told["completed"]) == (0, 20), said
    arrays = [json.loads(line) for line in (tmp_path / "s/slurm/submitted.jsonl").read_text().splitlines()]
    assert sum(one["tasks"] for one in arrays) == 20
    assert os.path.getsize(tmp_path / "s/tasks/19.out") == 3
