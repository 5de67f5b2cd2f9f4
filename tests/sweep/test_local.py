"""Sweeps on this machine: real programs, and what their records say."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from scalelab.cli.sweep.shown import show_rows
from scalelab.record.sweep import MetricRead, SweepRecord, SweepStatus, TaskRecord
from scalelab.sweep.table import TaskRow
from tests import support
from tests.sweep.conftest import Sweep

PYTHON = (sys.executable, "-S", "-c")
ODD = [
    "a b", " lead", "it's", 'say "hi"', "line\nbreak\n", "日本 é ß", "--lr", "-1", "--", "", "$HOME", "`id`", "*", "a\\nb", "\\", "{x}",
    "a,b", "%s %a", "#x", "!x", "~", "\t", "a;b|c&d>e", "\u2028", "{{y}}",
]  # fmt: skip
"""arguments that a shell, a CSV file or a template could spoil"""
MEET = "open('in-{{task}}', 'w')\nwhile not all(os.path.exists(f'in-{{{{n}}}}') for n in range({})): time.sleep(0.01)"
"""of a task: it waits until so many have begun"""


def record(folder: Path, task: int) -> TaskRecord:
    """tasks/N.json, which is of the type that the schema says."""
    return msgspec.json.decode((folder / "tasks" / f"{task}.json").read_bytes(), type=TaskRecord, strict=True)


def test_arguments_arrive_as_they_were(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps({"x": value}) + "\n" for value in ODD))
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"
    ended = sweep("--list", "odd.jsonl", "--out", "s", "--", *PYTHON, show, "{x}", "<{x}>", "{{x}}", "--debug")
    assert ended.status == 0, ended.err
    for task, value in enumerate(ODD):
        assert json.loads((tmp_path / f"s/tasks/{task}.out").read_text()) == [value, f"<{value}>", "{x}", "--debug"]
        assert record(tmp_path / "s", task).values == {"x": value}


def test_a_record_says_what_was_run_and_how_it_went(sweep: Sweep, tmp_path: Path) -> None:
    program = "import sys; x = bytearray(60 << 20); print('score', sys.argv[1]); print('warned', file=sys.stderr)"
    words = ["--grid", "x=0.5,2", "--metric", r"score=score (\S+)", "--env", "COLOUR=red", "--env", "API_TOKEN=hush"]
    ended = sweep(*words, "--out", "s", "--json", "--", *PYTHON, program, "{x}")
    assert ended.status == 0, ended.err
    told = msgspec.json.decode(ended.out.encode(), type=SweepStatus)
    assert (told.completed, told.tasks, told.best and told.best.values) == (2, 2, {"x": "2"})
    found = record(tmp_path / "s", 1)
    assert (found.status, found.exit_status, found.metrics) == ("completed", 0, {"score": 2.0})
    assert (found.argv[-1], found.cwd, found.environment["COLOUR"]) == ("2", str(tmp_path), "red")
    assert found.seconds is not None
    assert 0 < found.seconds < 30
    assert found.peak_memory_bytes is not None
    assert 60 << 20 < found.peak_memory_bytes < 200 << 20
    assert sorted((tmp_path / "s/tasks/1.out").read_text().split()) == ["2", "score", "warned"]
    assert not any("hush" in path.read_text() for path in (tmp_path / "s").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print('score 1'); sys.exit(3)", "exit status 3: score 1"),
        ("print('score 1', flush=True); os.kill(os.getpid(), 9)", "ended by SIGKILL: score 1"),
        ("print('score 1', flush=True); os.kill(os.getpid(), signal.SIGRTMIN + 1)", "ended by SIGRTMIN+1: score 1"),
        ("print('scone 1')", "no metric: score: nothing in the output matches"),
        ("print('score nan')", "no metric: score: it is nan"),
        ("print('score 1', flush=True); time.sleep(60)", "timed out after 0.5 s"),
        ("signal.signal(15, lambda *_: sys.exit(0)); print('score 1', flush=True); time.sleep(60)", "timed out after 0.5 s"),
    ],
)
def test_what_is_not_completed_is_never_said_to_be(sweep: Sweep, tmp_path: Path, program: str, reason: str) -> None:
    limit = 0.5 if "timed out" in reason else 60
    words = ["--metric", r"score=score (\S+)", "--timeout", limit, "--out", "s", "--json"]
    ended = sweep(*words, "--", *PYTHON, f"import os, signal, sys, time; {program}")
    found = record(tmp_path / "s", 0)
    assert ended.status == 1
    assert json.loads(ended.out)["completed"] == 0
    assert found.status == "failed"
    assert reason in str(found.reason)
    assert f"task 0 failed: {reason}" in ended.err
    assert sweep("status", "s").status == 1


def test_a_program_that_cannot_be_started(sweep: Sweep, tmp_path: Path) -> None:
    ended = sweep("--grid", "which=true,no-such-program,.", "--out", "s", "--", "{which}")
    assert ended.status == 1
    assert [record(tmp_path / "s", task).status for task in range(3)] == ["completed", "failed", "failed"]
    assert record(tmp_path / "s", 1).reason == "no-such-program: cannot be started: No such file or directory"


def test_a_failed_task_is_tried_again_and_only_its_last_output_counts(sweep: Sweep, tmp_path: Path) -> None:
    program = "import sys; f = open('n', 'a'); n = f.tell(); f.write('x'); print('n', n); sys.exit(n < 2)"
    ended = sweep("--retries", 3, "--metric", r"n=n (\d)", "--out", "s", "--", *PYTHON, program)
    found = record(tmp_path / "s", 0)
    assert ended.status == 0, ended.err
    assert (found.status, found.metrics, [one.exit_status for one in found.attempts]) == ("completed", {"n": 2.0}, [1, 1])
    assert "--- attempt 2, after: exit status 1: n 0 ---" in (tmp_path / "s/tasks/0.out").read_text()


def test_resume_runs_only_what_failed(sweep: Sweep, tmp_path: Path) -> None:
    program = "import os, sys; open('log', 'a').write(sys.argv[1]); sys.exit(sys.argv[1] == 'b' and not os.path.exists('mended'))"
    assert sweep("--grid", "x=a,b,c", "--out", "s", "--", *PYTHON, program, "{x}").status == 1
    (tmp_path / "mended").touch()
    ended = sweep("resume", "s")
    assert ended.status == 0
    assert "1 of 3 tasks are to be run" in ended.err
    assert sorted((tmp_path / "log").read_text()) == ["a", "b", "b", "c"]
    assert "nothing is left to be run" in sweep("resume", "s").err


def test_a_task_whose_record_was_lost_is_run_again(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("--grid", "x=1,2,3,4,5", "--metric", r"n=\d", "--out", "s", "--", "echo", "{x}").status == 0
    tasks = tmp_path / "s/tasks"
    (tasks / "0.json").unlink()
    (tasks / "1.json").write_text('{"kind": "sweep-ta')
    (tasks / "2.json").write_bytes((tasks / "4.json").read_bytes())
    (tasks / "3.json").write_text('{"task": 3, "status": "completed", "metrics": {"n": 9}}')
    (tasks / "5 (copy).json").write_bytes((tasks / "4.json").read_bytes().replace(b"completed", b"failed"))
    told = json.loads(sweep("status", "s", "--json").out)
    assert (told["missing"], told["completed"], told["best"]["tasks"]) == (4, 1, [4])
    assert sweep("resume", "s").status == 0
    assert json.loads(sweep("status", "s", "--json").out)["completed"] == 5


def test_a_plan_that_lost_lines_is_told(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("--grid", "x=1,2", "--out", "s", "--", "false", "{x}").status == 1
    plan = tmp_path / "s/tasks.jsonl"
    plan.write_bytes(plan.read_bytes()[:-9])
    for action in ("resume", "results"):
        assert "tasks.jsonl: is damaged: it should have the tasks 0 to 1" in sweep(action, "s").error


def test_a_folder_that_is_gone_is_not_replaced_by_another(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    assert sweep("--out", tmp_path / "s", "--", "false").status == 1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").rmdir()
    assert sweep("resume", "s").status == 1
    assert record(tmp_path / "s", 0).reason == f"{tmp_path}/gone: the folder to run in: No such file or directory"


def test_output_is_appended_and_told_without_what_a_terminal_obeys(sweep: Sweep, tmp_path: Path) -> None:
    program = r"echo one > /dev/stderr; printf 'two\rthe \033[31mend\033[0m\007\n'; exit 3"
    assert sweep("--out", "s", "--", "sh", "-c", program).status == 1
    assert record(tmp_path / "s", 0).reason == "exit status 3: the end"
    assert (tmp_path / "s/tasks/0.out").read_bytes().startswith(b"one\ntwo\r")


def test_tasks_at_once_and_their_cores(sweep: Sweep, tmp_path: Path) -> None:
    program = "import os, time; print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS']); " + MEET.format(4)
    assert sweep("--repeats", 4, "--jobs", 4, "--timeout", 60, "--out", "s", "--", *PYTHON, program).status == 0
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // 4)
    seen = {(tmp_path / f"s/tasks/{task}.out").read_text() for task in range(4)}
    assert f"{cores[:each]} {each}\n" in seen
    assert len(seen) == min(4, len(cores))


def test_gpus_are_shared_out(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    program = f"import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); {MEET.format(2)}"
    assert sweep("--repeats", 2, "--jobs", 2, "--timeout", 60, "--out", "s", "--", *PYTHON, program).status == 0
    assert {(tmp_path / f"s/tasks/{task}.out").read_text() for task in range(2)} == {"0,1\n", "2,3\n"}
    assert "this machine: its GPUs are fewer" in sweep("--gpus-per-task", 5, "--out", "t", "--", "true").error
    assert not (tmp_path / "t").exists()


def test_a_metric_of_a_json_file_and_of_the_last_line(sweep: Sweep, tmp_path: Path) -> None:
    program = (
        "import json, sys; json.dump({{'a': [0, {{'b': float(sys.argv[1])}}]}}, open(sys.argv[2], 'w')); print('{{\"c\": 7}}')"
    )
    words = ["--metric-json", "b=out-{task}.json:a.1.b", "--metric-json", "-:c", "--minimize", "b", "--out", "s", "--json"]
    ended = sweep("--grid", "x=3,2", *words, "--", *PYTHON, program, "{x}", "out-{task}.json")
    assert ended.status == 0, ended.err
    assert record(tmp_path / "s", 0).metrics == {"b": 3.0, "c": 7.0}
    assert json.loads(ended.out)["best"]["values"] == {"x": "2"}


def test_no_room_for_a_record_is_no_completion(sweep: Sweep, tmp_path: Path) -> None:
    with support.small_disk(tmp_path / "disk", "256k") as disk:
        program = "import os, sys; f = open(sys.argv[1], 'wb', 0)\ntry:\n  while f.write(b'x' * 512): pass\nexcept OSError: pass"
        ended = sweep("--grid", "x=a,b", "--jobs", 1, "--out", disk / "s", "--", *PYTHON, program, f"{disk}/ballast", "{x}")
        assert ended.status == 1
        assert "task 0 failed: its record could not be kept" in ended.err
        assert "No space left on device" in ended.err
        (disk / "ballast").unlink()
        told = json.loads(sweep("status", disk / "s", "--json").out)
        assert (told["completed"], told["lost"] + told["missing"]) == (0, 2)
        assert not list(disk.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--grid", "x=1"], "which program? it comes after --"),
        (["--grid", "x=1", "--", "echo"], "parameter 'x' is not used"),
        (["--", "echo", "{x}"], "no parameter is called 'x'"),
        (["--", "no-such-program"], "no-such-program: is not found"),
        (["--metric", "a=(", "--", "true"], "is no regular expression"),
        (["--maximize", "a", "--", "true"], "unknown metric 'a'"),
        (["--metric", "a=b", "--metric", "a=c", "--", "true"], "metric 'a' is there twice"),
        (["--jobs", "0", "--", "true"], "--jobs 0: expected a whole number, at least 1"),
        (["--jobs", "2", "--slurm", "--", "true"], "--slurm has --max-running N"),
        (["--max-running", "2", "--", "true"], "--max-running is of --slurm"),
        (["--jobs", "9999999", "--", "true"], "--jobs 9999999: expected a whole number, at least 1, at most 4,096"),
        (["--repeats", "9" * 5000, "--", "true"], "expected a whole number, at least 1, at most 999,999,999,999,999,999"),
        (["--repeats", "1000000", "--", "true"], "these are 1,000,000 tasks"),
        (["--grid", r'x=["\ud800"]', "--", "echo", "{x}"], "parameter 'x', '\\ud800': is not UTF-8 text"),
        (
            ["--grid", "x=1,2", "--metric-json", "a.json:a", "--", "echo", "{x}"],
            "2 tasks would write 1 file, and those that run at",
        ),
        (["--timeout", "-1", "--", "true"], "--timeout '-1': expected seconds"),
        (["--hosts", "h1", "--slurm", "--", "true"], "one of the two"),
        (["--slurm", "--env", "API_TOKEN=x", "--", "true"], "export API_TOKEN here, and give --env API_TOKEN"),
        (["--hosts", "none.txt", "--", "true"], "there is no such file"),
        (["statsu", "s"], "did you mean 'status'"),
        (["status", "nowhere"], "holds no sweep.json"),
        (["--grdi", "x=1", "--", "true"], "did you mean '--grid'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(sweep: Sweep, tmp_path: Path, words: list[str], said: str) -> None:
    ended = sweep(*words)
    assert (ended.status, list(tmp_path.iterdir())) == (2, [])
    assert said in ended.error


def test_a_folder_that_holds_a_sweep_is_not_written_over(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("--out", "s", "--", "true").status == 0
    before = (tmp_path / "s/sweep.json").read_bytes()
    assert "holds a sweep already; `scalelab sweep resume`" in sweep("--out", "s", "--", "false").error
    assert (tmp_path / "s/sweep.json").read_bytes() == before


def test_dry_run_prints_the_commands_and_starts_nothing(sweep: Sweep, tmp_path: Path) -> None:
    ended = sweep("--grid", "x=1,a b", "--dry-run", "--", "touch", "{x}")
    assert (ended.status, ended.out) == (0, "touch 1\ntouch 'a b'\n")
    assert list(tmp_path.iterdir()) == []
    planned = json.loads(sweep("--grid", "x=1,a b", "--dry-run", "--json", "--", "touch", "{x}").out)
    assert [task["argv"] for task in planned["tasks"]] == [["touch", "1"], ["touch", "a b"]]


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_fits_a_terminal_and_loses_no_word_of_a_reason(width: int) -> None:
    made = SweepRecord(
        name="p", command=[], argv=[], cwd="/", parameters=["rate", "name"], tasks=1, repeats=2, created="",
        metrics=[MetricRead(name="accuracy", pattern="x")],
    )  # fmt: skip
    row = TaskRow(
        task=1234, state="failed", reason="exit status 127: it was interrupted", values={"rate": "0.001", "name": "long " * 20},
        metrics={"accuracy": 0.912345}, seconds=3, peak_memory_bytes=1 << 30, host="node17",
    )  # fmt: skip
    out = Console(width=width, file=io.StringIO())
    show_rows(out, made, [row], 1)
    said = out.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in said.splitlines())
    assert all(
        word in said for word in ["accuracy", "0.912345", "3.00 s", "1.00 GiB", "failed:", "status", "interrupted", "0.001"]
    )


def test_half_a_record_of_a_killed_runner_is_cleared_away(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("--out", "s", "--", "false").status == 1
    (tmp_path / "s/tasks/.0.json.123.tmp").write_text("{")
    assert sweep("resume", "s").status == 1
    assert not list((tmp_path / "s/tasks").glob(".*.tmp"))
