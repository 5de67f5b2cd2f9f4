"""What is shown on a terminal is read there, never obeyed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from rich.table import Table

from scalelab.cli.terminal import Watcher, console
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from scalelab.record.atomic import write_atomic
from scalelab.record.schema import Failure
from tests.conftest import Command
from tests.report import samples
from tests.trainings import completed

ESCAPES = "\x1b]0;mine\x07\x1b[2J\x9b2J\u202e\r"


def test_a_record_does_not_drive_the_terminal(command: Command, pool: Pool, tmp_path: Path) -> None:
    folder = tmp_path / completed(pool, tmp_path).run
    record = records.load(folder)
    record.status, record.name, record.strategy = "failed", f"name{ESCAPES}", f"ddp{ESCAPES}"
    record.notes.append(f"note{ESCAPES}")
    record.failure = Failure(error=f"bug{ESCAPES}", rank=0, host=f"host{ESCAPES}", traceback=f"one\n\ttwo{ESCAPES}")
    records.save(folder, record)
    for words in (["list"], ["show"], ["compare", folder, folder], ["show", f"x{ESCAPES}"]):
        ended = command("runs", *words, "--out", tmp_path)
        assert not set("\x1b\x07\x9b\u202e\r") & set(ended.out + ended.err)
    shown = command("runs", "show", "--out", tmp_path).out
    assert "bug]0;mine" in shown
    assert "one\n        two" in shown.replace("\t", "        ")


def test_no_line_of_a_table_ends_in_spaces_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None, show_header=False)
    for row in (("a", "long words"), ("bc", "x")):
        table.add_row(*row)
    for to_stderr in (False, True):
        console(to_stderr).print(table)
    assert "".join(capsys.readouterr()) == 2 * " a   long words\n bc  x\n"


def test_the_last_line_of_a_training_has_the_records_throughput(tmp_path: Path) -> None:
    made, steps = samples.record("single")
    watcher = Watcher(console(), "single", len(steps))
    lines = [msgspec.json.encode(step) + b"\n" for step in steps]
    (tmp_path / "steps.jsonl").write_bytes(b"".join(lines[:-1]))
    watcher.watch(tmp_path)
    assert f"{sum(s.batch for s in steps[:-1]) / sum(s.seconds for s in steps[:-1]):,.0f} images/s" in watcher._facts()
    (tmp_path / "steps.jsonl").write_bytes(b"".join(lines))
    watcher.watch(tmp_path)
    assert "images/s" not in watcher._facts()  # the record does not have it yet
    (tmp_path / "record.json").write_bytes(msgspec.json.encode(made))
    watcher.watch(tmp_path)
    assert f"{made.images_per_second.median:,.0f} images/s" in watcher._facts()


def test_a_run_that_goes_on_is_followed_though_its_lines_were_dropped_and_as_many_came_between_two_looks(tmp_path: Path) -> None:
    _, steps = samples.record("single")
    watcher = Watcher(console(), "single", len(steps))
    lines = [msgspec.json.encode(step) + b"\n" for step in steps]
    (tmp_path / "steps.jsonl").write_bytes(b"".join(lines[:-2]))
    watcher.watch(tmp_path)
    other = msgspec.json.encode(msgspec.structs.replace(steps[-3], loss=0.123456789012345)) + b"\n"
    write_atomic(tmp_path / "steps.jsonl", b"".join([*lines[:-3], other, *lines[-2:]]))
    watcher.watch(tmp_path)
    assert watcher.step == steps[-1].step
