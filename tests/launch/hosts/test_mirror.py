"""What is written in one folder comes to be in another one: by real files, and messages carried by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from scalelab.errors import RunError
from scalelab.launch.hosts.copying import Copy
from scalelab.launch.hosts.mirror import Mirror, Part
from scalelab.record import folder as records
from scalelab.record.pointer import newest_step
from scalelab.record.schema import Failure
from scalelab.worker import checkpoint
from scalelab.worker.checkpoint import Progress


class Pair:
    """A folder that ranks 0 and 1 write into, and its copy."""

    def __init__(self, place: Path) -> None:
        self.there, self.here = place / "there", place / "here"
        for folder in (self.there, self.here):
            for part in ("logs", "failures", "checkpoints"):
                (folder / part).mkdir(parents=True)
        self.mirror, self.copy = Mirror(self.there, frozenset((0, 1))), Copy(self.here, "h2")

    def carry(self, parts: Iterable[Part]) -> list[str]:
        """Carry messages over; what they do to which file."""
        done = []
        for message, body in parts:
            self.copy.take(json.loads(json.dumps(message)), body)
            done.append(f"{message['do']} {message['path']}")
        return done

    def look(self, room: int = 1 << 30) -> list[str]:
        """One look as the agent takes it."""
        return self.carry([*self.mirror.grown(), *self.mirror.whole(room)])

    def equal(self) -> bool:
        """Whether all files are the same on both sides, hidden ones aside."""
        return contents(self.there) == contents(self.here)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def append(path: Path, body: bytes) -> None:
    with path.open("ab") as file:
        file.write(body)


def test_what_is_appended_is_sent_and_no_more(pair: Pair) -> None:
    log = pair.there / "logs" / "rank-1.txt"
    append(log, b"one\n")
    pair.look()
    append(log, "zwei €\n".encode()[:-3])  # in the middle of a letter
    ((message, body),) = pair.mirror.grown()
    assert (message["at"], body) == (4, "zwei €\n".encode()[:-3])
    pair.copy.take(message, body)
    append(log, "zwei €\n".encode()[-3:])
    assert pair.look() == ["grown logs/rank-1.txt"]
    assert pair.look() == []
    assert pair.equal()


def test_logs_of_an_earlier_attempt_are_appended_to(pair: Pair) -> None:
    (pair.here / "logs" / "rank-0.txt").write_text("first attempt\n")
    append(pair.there / "logs" / "rank-0.txt", b"second")
    pair.look()
    append(pair.there / "logs" / "rank-0.txt", b" attempt\n")
    pair.look()
    assert (pair.here / "logs" / "rank-0.txt").read_text() == "first attempt\nsecond attempt\n"


def test_a_growing_file_that_is_replaced_or_cut_is_sent_anew(pair: Pair) -> None:
    steps = pair.there / "steps.jsonl"
    steps.write_bytes(b"1\n2\n3\n")
    pair.look()
    records.write_atomic(steps, b"1\n2\n9\n4\n")
    append(steps, b"5\n")
    pair.look()
    assert pair.equal()
    os.truncate(steps, 2)
    pair.look()
    append(steps, b"2b\n")
    pair.look()
    assert pair.equal()


def test_files_that_came_from_there_are_not_sent_back(pair: Pair) -> None:
    for folder in (pair.there, pair.here):
        (folder / "steps.jsonl").write_bytes(b"1\n")
        (folder / "record.json").write_bytes(b"{}")
    for name in ("steps.jsonl", "record.json"):
        pair.mirror.has(name)
        pair.copy.known(name)
    assert pair.look() + pair.carry(pair.mirror.rest()) == []
    append(pair.there / "steps.jsonl", b"2\n")
    records.write_atomic(pair.there / "record.json", b"{1}")
    assert pair.look() == ["grown steps.jsonl"]  # the other is still changing, for all that is known
    assert pair.look() == ["whole record.json"]
    assert pair.equal()


def test_half_written_and_hidden_files_stay(pair: Pair) -> None:
    for name in (".record.json.77.tmp", ".lock", "checkpoints/.step-1.safetensors.7.tmp"):
        (pair.there / name).write_bytes(b"half")
    (pair.there / ".cache").mkdir()
    (pair.there / ".cache" / "x.json").write_bytes(b"{}")
    assert pair.look() + pair.look() + pair.carry(pair.mirror.rest()) == []


def test_files_of_other_ranks_are_not_this_hosts_to_send(pair: Pair) -> None:
    for folder in ("logs", "resources", "profile"):
        (pair.there / folder).mkdir(exist_ok=True)
    for name in ("logs/rank-2.txt", "resources/rank-12.jsonl", "resources/rank-1.jsonl", "profile/rank-1-0.json"):
        (pair.there / name).write_bytes(b"x")
    assert pair.carry(pair.mirror.rest()) == ["grown resources/rank-1.jsonl"]


def test_a_file_that_vanishes_is_no_error(pair: Pair) -> None:
    path = pair.there / "trace.json.gz"
    path.write_bytes(bytes(1 << 20))
    parts = pair.mirror.rest()
    pair.carry([next(parts)])
    path.unlink()
    pair.carry(parts)  # it was open
    assert pair.look() == []
    assert not list(pair.here.glob(".*.tmp"))


def test_a_file_that_changes_while_it_is_sent_never_takes_its_place_torn(pair: Pair) -> None:
    path = pair.there / "trace.json.gz"
    path.write_bytes(b"a" * (1 << 20))
    parts = pair.mirror.rest()
    pair.carry([next(parts), next(parts)])
    with path.open("r+b") as file:
        file.write(b"b" * (1 << 20))
    os.utime(path, ns=(1, 1))  # a coarse clock may tell the same time twice
    assert pair.carry(parts)[-1] == "forget trace.json.gz"
    assert not (pair.here / "trace.json.gz").exists()
    pair.carry(pair.mirror.rest())
    assert pair.equal()


def test_a_large_file_comes_in_parts_and_takes_its_place_at_the_end(pair: Pair) -> None:
    path = pair.there / "checkpoints" / "step-00000001.safetensors"
    path.write_bytes(os.urandom(50_000_000))
    pair.look()
    looks = 0
    while not pair.equal():
        assert not (pair.here / "checkpoints" / path.name).exists()
        append(pair.there / "logs" / "rank-0.txt", b"meanwhile\n")
        assert pair.look(1 << 22)[0] == "grown logs/rank-0.txt"  # logs don't wait for it
        looks += 1
    assert 10 < looks < 20


def test_a_pointer_never_comes_before_its_checkpoint(pair: Pair) -> None:
    """At whatever message the line is cut: what the copy points to is there and whole."""
    states = 0
    for step in range(1, 5):
        checkpoint.save(pair.there, {"model": {}, "optimizer": {}}, Progress(step), best=step == 2)
        parts = pair.mirror.whole(1 << 30) if step % 2 else pair.mirror.rest()
        for part in parts:
            pair.carry([part])
            for pointer in (pair.here / "checkpoints").glob("*.json"):
                named = json.loads(pointer.read_bytes())["file"]
                if pointer.name == "last.json":
                    assert (pair.here / "checkpoints" / named).exists()
                    checkpoint.load(pair.here, lambda message: pytest.fail(message))
                    states += 1
    pair.carry(pair.mirror.rest())
    assert pair.equal()  # with those removed that are no longer pointed to
    assert states > 4


def test_a_pointer_that_changes_after_the_look_waits_for_the_next(pair: Pair) -> None:
    checkpoint.save(pair.there, {"model": {}, "optimizer": {}}, Progress(1), best=False)
    pair.look()
    parts = pair.mirror.whole(1 << 30)
    pair.carry([next(parts)])
    checkpoint.save(pair.there, {"model": {}, "optimizer": {}}, Progress(2), best=False)
    pair.carry(parts)
    assert newest_step(pair.here) == 1
    pair.carry(pair.mirror.rest())
    assert pair.equal()


def test_a_failure_comes_at_once_with_the_time_of_this_hosts_clock(pair: Pair) -> None:
    pair.copy.ahead = 3600.0
    records.write_failure(pair.there, 1, Failure(error="ValueError: x", host="worker-17", rank=1))
    body = json.loads((pair.there / "failures" / "rank-1.json").read_text())
    assert pair.carry(pair.mirror.failures()) == ["whole failures/rank-1.json"]
    found = json.loads((pair.here / "failures" / "rank-1.json").read_text())
    assert found["host"] == "h2"  # as the user calls it
    assert (body["time"][11:13], found["time"][11:13]) in {(f"{h:02}", f"{(h - 1) % 24:02}") for h in range(24)}
    assert body["time"][14:] == found["time"][14:]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ".lock", "checkpoints/.x.tmp", "", "."])
def test_a_host_can_write_nowhere_else(pair: Pair, name: str) -> None:
    with pytest.raises(RunError, match="no file of a run"):
        pair.copy.take({"do": "whole", "path": name, "at": 0, "last": True}, b"x")


def test_what_cannot_be_written_is_named(pair: Pair) -> None:
    (pair.here / "record.json").mkdir()
    with pytest.raises(RunError, match=r"here/record.json: cannot be written: Is a directory"):
        pair.copy.take({"do": "whole", "path": "record.json", "at": 0, "last": True}, b"x")


def test_a_pointer_comes_after_the_steps_and_the_epochs_before_its_checkpoint(pair: Pair) -> None:
    """Else who goes on from it, where the line was cut just then, would miss some for ever."""
    for step in range(1, 4):  # the record is new at each look, the checkpoint was seen before
        checkpoint.save(pair.there, {"model": {}, "optimizer": {}}, Progress(step), best=False)
        pair.carry(pair.mirror.grown())
        list(
            pair.mirror._files([f"checkpoints/{path.name}" for path in (pair.there / "checkpoints").glob("*.safetensors")], False)
        )
        append(pair.there / "steps.jsonl", b"%d\n" % step)
        records.write_atomic(pair.there / "record.json", b'{"epochs": %d}' % step)
        pair.carry(pair.mirror.whole(1 << 30))
        assert json.loads((pair.here / "checkpoints" / "last.json").read_bytes())["step"] == step
        assert (pair.here / "steps.jsonl").read_bytes().split()[-1] == b"%d" % step
        assert json.loads((pair.here / "record.json").read_bytes())["epochs"] == step


def test_after_a_part_that_found_no_room_nothing_leaves_a_hole(pair: Pair) -> None:
    steps = pair.here / "steps.jsonl"
    steps.symlink_to("/dev/full")
    with pytest.raises(RunError, match="No space left"):
        pair.copy.take({"do": "grown", "path": "steps.jsonl", "at": 0, "fresh": False}, b"1\n")
    steps.unlink()  # now there is some
    pair.copy.take({"do": "grown", "path": "steps.jsonl", "at": 2, "fresh": False}, b"2\n")
    assert not steps.exists()
    pair.copy.take({"do": "grown", "path": "steps.jsonl", "at": 0, "fresh": True}, b"1\n2\n")
    assert steps.read_bytes() == b"1\n2\n"
