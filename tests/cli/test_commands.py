"""The commands as scripts use them: one JSON document on stdout, flags, files, exit statuses."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import yaml

from scalelab import spec as specs
from scalelab.cli.places.placing import commands_as_json
from scalelab.launch import launcher, training
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord, VerifyRecord
from tests.conftest import Command
from tests.trainings import FLAGS, VERIFY_FLAGS, completed, only_run, start


def document(text: str) -> Any:
    """The one JSON document that ``text`` is."""
    value, end = json.JSONDecoder().raw_decode(text)
    assert text[end:] == "\n"
    return value


def test_train_json(command: Command, tmp_path: Path) -> None:
    ended = command("train", *FLAGS, "--strategy", "ddp", "--workers", 2, "--epochs", 2, "--out", tmp_path / "runs", "--json")
    assert ended.status == 0
    found = document(ended.out)
    assert Path(found["run"]) == only_run(tmp_path / "runs")
    assert (found["kind"], found["status"], found["strategy"], found["workers"]) == ("train", "completed", "ddp", 2)
    assert len(found["losses"]) == 8
    assert set(found["communication_seconds"]) == {"total", "exposed", "hidden", "waited", "bare"}
    msgspec.convert(found, TrainRecord)
    assert "8 steps, 4 an epoch" in ended.err


def test_train_for_people(command: Command, tmp_path: Path) -> None:
    ended = command("train", *FLAGS, "--epochs", 4, "--out", tmp_path / "runs")
    assert ended.status == 0
    for part in ("status", "throughput", "peak memory", "accuracy", str(only_run(tmp_path / "runs"))):
        assert part in ended.out
    assert "batch 24 = micro-batch 24 x accumulate 1 x 1 replica" in ended.err
    assert "\x1b[" not in ended.out + ended.err  # no colours where nobody sees them


def test_train_dry_run_json(command: Command, tmp_path: Path) -> None:
    ended = command("train", *FLAGS, "--strategy", "ddp", "--workers", 2, "--out", tmp_path / "runs", "--dry-run", "--json")
    assert ended.status == 0
    found = document(ended.out)
    assert (found["spec"]["strategy"], found["derived"]["data"], found["plan"]["steps_per_epoch"]) == ("ddp", 2, 4)
    assert [one["env"]["RANK"] for one in found["commands"]] == ["0", "1"]
    assert {tuple(one["argv"][1:3]) for one in found["commands"]} == {("-m", "scalelab.worker")}
    assert not (tmp_path / "runs").exists()


def test_what_a_dry_run_tells_as_json_hides_secrets(pool: Pool) -> None:
    prepared = training.prepare(pool, specs.from_mapping({"data": "synthetic", "image_size": 8, "train_limit": 64}))
    (one,) = json.loads(commands_as_json(prepared, [launcher.Command("h1", ("ssh",), {"MY_TOKEN": "s3cr3t", "A": "1"})]))[
        "commands"
    ]
    assert one == {"host": "h1", "argv": ["ssh"], "env": {"MY_TOKEN": "****", "A": "1"}}


def test_verify_json(command: Command) -> None:
    ended = command("verify", *VERIFY_FLAGS, "--steps", 2, "--strategy", "ddp", "zero3", "--json")
    assert ended.status == 0
    found = msgspec.convert(document(ended.out), VerifyRecord)
    cells = [(cell.strategy, cell.engine, cell.workers, cell.status) for cell in found.cells]
    assert cells == [("ddp", "torch", 2, "passed"), ("zero3", "torch", 2, "passed")]
    assert (found.steps, found.batch, found.precision, found.tolerance) == (2, 24, "fp64", 1e-9)


@pytest.fixture(scope="module")
def two_runs(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A folder with two runs, which nobody changes, and their names."""
    out = tmp_path_factory.mktemp("two") / "runs"
    a = completed(pool, out, name="first", epochs=3)
    b = completed(pool, out, name="second", epochs=3, strategy="ddp", workers=2, lr=0.01)
    return out, a.run, b.run


def test_runs_json(command: Command, two_runs: tuple[Path, str, str], tmp_path: Path) -> None:
    out, a, b = two_runs
    assert [r["run"] for r in document(command("runs", "list", "--out", out, "--json").out)] == sorted([a, b])
    assert document(command("runs", "--out", out, "--json").out) == document(command("runs", "list", "--out", out, "--json").out)
    assert document(command("runs", "show", "first", "--out", out, "--json").out)["run"] == a
    assert len(document(command("runs", "show", "first", "second", "--out", out, "--json").out)) == 2
    compared = document(command("runs", "compare", a, b, "--out", out, "--json").out)
    assert {"strategy", "workers", "lr"} <= {difference["key"] for difference in compared["spec"]}
    exported = document(command("runs", "export", "parquet", "--out", out, "-o", tmp_path / "x.parquet", "--json").out)
    assert pq.read_table(exported["output"]).num_rows == 2


def test_runs_for_people(command: Command, two_runs: tuple[Path, str, str], tmp_path: Path) -> None:
    out, a, b = two_runs
    listed = command("runs", "list", "--out", out).out
    assert a in listed
    assert b in listed
    assert "first: single on 1 worker" in command("runs", "show", a, "--out", out).out
    assert "strategy" in command("runs", "compare", a, b, "--out", out).out
    command("runs", "export", "csv", "--out", out, "-o", tmp_path / "x.csv")
    with (tmp_path / "x.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == sorted([a, b])


def test_runs_list_of_an_empty_folder(command: Command, tmp_path: Path) -> None:
    ended = command("runs", "list", "--out", tmp_path, "--json")
    assert (ended.status, document(ended.out)) == (0, [])


def test_report_json(command: Command, two_runs: tuple[Path, str, str], tmp_path: Path) -> None:
    out, a, b = two_runs
    found = document(command("report", "--out", out, "-o", tmp_path / "page.html", "--json").out)
    assert Path(found["report"]).read_text().startswith("<!doctype html>") or "<html" in Path(found["report"]).read_text()[:500]
    assert {Path(run).name for run in found["runs"]} == {a, b}


@pytest.mark.parametrize("kind", ["md", "csv", "html"])
def test_report_formats(command: Command, two_runs: tuple[Path, str, str], tmp_path: Path, kind: str) -> None:
    out, a, _ = two_runs
    assert command("report", a, "--out", out, "-o", tmp_path / f"page.{kind}").status == 0
    assert (tmp_path / f"page.{kind}").stat().st_size > 100


def test_demo_json(command: Command, tmp_path: Path) -> None:
    ended = command("demo", "--steps", 12, "--out", tmp_path / "runs", "-o", tmp_path / "demo.html", "--json")
    assert ended.status == 0, ended.err
    found = document(ended.out)
    strategies = {msgspec.json.decode((Path(run) / "record.json").read_bytes())["strategy"] for run in found["runs"]}
    assert strategies == {"single", "ddp", "zero1", "zero2", "zero3"}
    verified = {cell["strategy"]: cell["status"] for cell in found["verify"]["cells"]}
    assert verified == dict.fromkeys(("ddp", "zero1", "zero2", "zero3"), "passed")
    assert found["question"].endswith("?")
    assert found["answer"]
    assert len(found["rows"]) == len(found["runs"])
    assert Path(found["report"]).stat().st_size < 2e6


def test_a_spec_file_and_flags_over_it(command: Command, tmp_path: Path) -> None:
    values = {"data": "synthetic", "image_size": 8, "train_limit": 48, "batch": 12, "model_args": {"width": 4}, "lr": 0.02}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(values))
    words = ["--spec", tmp_path / "spec.yaml", "--lr", 0.03, "--batch-per-worker", 24, "--out", tmp_path / "runs", "--json"]
    found = document(command("train", *words).out)
    assert (found["spec"]["lr"], found["spec"]["train_limit"], found["spec"]["model_args"]) == (0.03, 48, {"width": 4})
    assert found["derived"]["batch"] == 24


def test_the_spec_of_a_record_is_a_spec_file(command: Command, tmp_path: Path) -> None:
    first = document(command("train", *FLAGS, "--strategy", "zero2", "--workers", 2, "--out", tmp_path / "a", "--json").out)
    again = document(command("train", "--spec", Path(first["run"]) / "spec.yaml", "--out", tmp_path / "b", "--json").out)
    assert again["losses"] == first["losses"]


@pytest.mark.parametrize("name", specs.FIELDS)
def test_every_field_is_a_flag_with_help(name: str) -> None:
    flag = "--model-arg" if name == "model_args" else "--" + name.replace("_", "-")
    assert flag in help_of("train")
    text = specs.HELP[name].split(", ", 1)[-1]
    # Without spaces: at some widths of the terminal a line ends at a hyphen.
    assert "".join(text.split()) in "".join(help_of("train").split())


HELP: dict[str, str] = {}


def help_of(command: str) -> str:
    """The command's ``--help``, asked once."""
    if command not in HELP:
        done = subprocess.run([sys.executable, "-m", "scalelab", command, "--help"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        HELP[command] = done.stdout
    return HELP[command]


@pytest.mark.parametrize("name", ["train", "verify", "explain", "demo", "runs", "report"])
def test_every_commands_help_has_an_example_and_the_common_flags(name: str) -> None:
    text = help_of(name)
    assert f"scalelab {name}" in text.split("examples:")[1]
    assert "--json" in text
    assert "--debug" in text


def test_a_run_is_named_and_found_by_its_name(command: Command, tmp_path: Path) -> None:
    ended = command("train", *FLAGS, "--name", "x <b> 'y' ünï", "--steps", 1, "--out", tmp_path / "runs", "--json")
    folder = Path(document(ended.out)["run"])
    assert "x-b-y-n" in folder.name
    assert records.load(folder).name == "x <b> 'y' ünï"
    assert records.find(["latest"], tmp_path / "runs") == [folder]


def test_resume_by_a_part_of_the_name(command: Command, tmp_path: Path) -> None:
    command("train", *FLAGS, "--out", tmp_path / "runs")
    identity = only_run(tmp_path / "runs").name[-6:]
    found = document(command("train", "--resume", identity, "--epochs", 3, "--out", tmp_path / "runs", "--json").out)
    assert len(found["losses"]) == 12
    assert Path(found["run"]) == only_run(tmp_path / "runs")


def test_a_reader_that_goes_away_is_no_error(two_runs: tuple[Path, str, str]) -> None:
    process = start("runs", "show", "first", "--out", two_runs[0], "--json")
    assert process.stdout is not None
    process.stdout.close()
    process.wait(20)
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_path_with_spaces_and_quotes(command: Command, tmp_path: Path) -> None:
    out = tmp_path / 'it\'s a "folder" $HOME; `x`'
    assert command("train", *FLAGS, "--steps", 1, "--out", out).status == 0
    assert only_run(out).parent == out
