"""Files of ours that were damaged: told in one line by their names, or passed over, never a traceback."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from scalelab.errors import ScalelabError
from scalelab.record import document, samples
from scalelab.record import folder as records
from scalelab.record.schema import Sample


class Small(msgspec.Struct):
    """What a file of these tests should hold."""

    name: str


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"name": 3}', b'{"name": "\xff"}', bytes(64)])
def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "small.json").write_bytes(body)
    with pytest.raises(ScalelabError, match=r"small\.json: cannot be read as a small one: .*; make it anew") as caught:
        document.read(tmp_path / "small.json", Small, "a small one", "make it anew")
    assert "\n" not in str(caught.value)


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="cannot be read: Is a directory"):
        document.read(tmp_path, Small, "a small one")


def test_one_damaged_record_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b'{"run": "\xff"}')
    readable, faults = records.load_all([tmp_path], named=False)
    assert not readable
    assert "cannot be read as a record" in faults[0]


@pytest.mark.parametrize("damage", [bytes(20), b'{"step": "\xff"}'])
def test_a_damaged_step_is_told_by_its_line(tmp_path: Path, damage: bytes) -> None:
    step = b'{"step":1,"epoch":1,"batch":8,"learning_rate":0.1,"loss":1.0,"seconds":0.1,"data_seconds":0.0}\n'
    (tmp_path / "steps.jsonl").write_bytes(step + damage + b"\n" + step)
    with pytest.raises(ScalelabError, match=r"steps\.jsonl: line 2 cannot be read as a step"):
        list(records.read_steps(tmp_path))


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "small.jsonl").write_bytes(b'{"name": "a"}\n{"name": "b"}\n{"na')
    assert [one.name for one in document.lines(tmp_path / "small.jsonl", Small, "a small one")] == ["a", "b"]
    assert [one.name for one in document.lines(tmp_path / "small.jsonl", Small, "a small one", 1)] == ["b"]


def test_a_damaged_sample_is_passed_over(tmp_path: Path) -> None:
    whole = Sample(at=1.0, rank=0, cpu_percent=1.0, threads=1, resident_bytes=1)
    samples.path(tmp_path, 0).parent.mkdir()
    samples.path(tmp_path, 0).write_bytes(b'{"at": "\xff"}\n' + msgspec.json.encode(whole) + b"\n")
    assert samples.read(tmp_path) == [whole]
