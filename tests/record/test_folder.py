"""Run folders: there from the start, replaced atomically, never half a record."""

from __future__ import annotations

import os
import threading
from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from scalelab.errors import RunError, ScalelabError
from scalelab.record import folder as records
from scalelab.record.schema import Failure, Step
from tests.report import samples


def test_names_of_folders_are_safe_and_never_meet(tmp_path: Path) -> None:
    made = [records.create(tmp_path, "../a b/<c>'\"\n$(x)") for _ in range(5)]
    assert len(set(made)) == 5
    for path in made:
        assert path.parent == tmp_path
        assert path.name.split("-", 1)[1].startswith("a-b-c-x-")
        assert {part.name for part in path.iterdir()} == {"logs", "failures", "checkpoints"}


def test_a_name_of_nothing_usable_is_called_run(tmp_path: Path) -> None:
    assert "-run-" in records.create(tmp_path, "///").name


def test_folders_sort_by_their_time(tmp_path: Path) -> None:
    stamp = records.create(tmp_path, "x").name.split("-")[0]
    assert datetime.strptime(stamp, "%Y%m%dT%H%M%SZ")


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    bodies = [bytes([65 + k]) * 200_000 for k in range(2)]
    records.write_atomic(path, bodies[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for body in bodies:
                records.write_atomic(path, body)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            assert path.read_bytes() in bodies
    finally:
        stop.set()
        writer.join()
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "inside").touch()
    with pytest.raises(RunError, match="cannot be written"):
        records.write_atomic(tmp_path / "target", "text")  # a folder stands in the way
    assert sorted(p.name for p in tmp_path.iterdir()) == ["target"]


STEP = Step(step=1, epoch=1, batch=8, learning_rate=0.1, loss=2.0, seconds=0.1, data_seconds=0.0)


def test_a_line_still_being_written_is_left_out(tmp_path: Path) -> None:
    line = msgspec.json.encode(STEP)
    (tmp_path / "steps.jsonl").write_bytes(line + b"\n" + line + b"\n" + line[:20])
    assert list(records.read_steps(tmp_path)) == [STEP, STEP]
    assert list(records.read_steps(tmp_path, start=1)) == [STEP]
    assert list(records.read_steps(tmp_path / "nowhere")) == []


def run(out: Path, name: str) -> Path:
    """A folder with a record of that name."""
    folder = out / name
    folder.mkdir(parents=True)
    records.save(folder, samples.record(run=name)[0])
    return folder


def test_runs_are_found_by_path_name_part_and_latest(tmp_path: Path) -> None:
    first, second = run(tmp_path, "20260101T000000Z-a-111111"), run(tmp_path, "20260102T000000Z-b-222222")
    (tmp_path / "not-a-run").mkdir()
    assert records.find([], tmp_path) == [first, second]
    assert records.find([str(first)], tmp_path / "elsewhere") == [first]
    assert records.find([second.name, "1111", "latest"], tmp_path) == [second, first, second]


@pytest.mark.parametrize(("name", "part"), [("2026", "2 runs match '2026'"), ("zzz", "no run matches 'zzz'")])
def test_what_matches_none_or_several_is_told(tmp_path: Path, name: str, part: str) -> None:
    run(tmp_path, "20260101T000000Z-a-111111")
    run(tmp_path, "20260102T000000Z-b-222222")
    with pytest.raises(ScalelabError, match=part):
        records.find([name], tmp_path)


@pytest.mark.parametrize("body", ["", "{", "[]", '{"kind": "verify"}', '{"run": 3}'])
def test_what_is_no_record_is_told_in_one_line(tmp_path: Path, body: str) -> None:
    (tmp_path / "record.json").write_text(body)
    with pytest.raises(ScalelabError, match="cannot be read as a record") as caught:
        records.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_record_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match=r"holds no record\.json"):
        records.load(tmp_path)


def test_a_failure_is_kept_with_its_time(tmp_path: Path) -> None:
    (tmp_path / "failures").mkdir()
    records.write_failure(tmp_path, 3, Failure(error="e", rank=3, traceback="t"))
    body = msgspec.json.decode((tmp_path / "failures" / "rank-3.json").read_bytes())
    assert body["time"].endswith("Z")
    assert (body["error"], body["rank"], body["traceback"]) == ("e", 3, "t")
