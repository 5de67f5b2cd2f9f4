"""A world's processes that are asked to end, in whatever order: nobody waits for an answer that does not come, and nothing is failed."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from scalelab.launch import pool as pools
from scalelab.launch.failure import by_themselves
from scalelab.launch.inside import meeting
from scalelab.launch.inside.first import Inside
from scalelab.launch.inside.meeting import Spot
from scalelab.launch.inside.other import Follower, hello
from scalelab.launch.inside.peer import Peer, reach
from scalelab.launch.inside.world import World
from scalelab.launch.launcher import Process
from scalelab.launch.pool import Pool
from scalelab.launch.signals import ENDING
from scalelab.record import folder as records
from scalelab.record.schema import Failure
from tests import support
from tests.waiting import PATIENCE, until

TWO = World("torchrun", 1, 2, 1, 2, "job")
CLOSED = "RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242"


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """What these processes do with signals ends with the test; one that comes where they do nothing breaks off what is under way."""

    def break_off(number: int, frame: FrameType | None) -> None:
        raise AssertionError("a signal broke this off")

    before = {number: signal.signal(number, break_off) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


Line = tuple[Peer, Peer]


@pytest.fixture
def line() -> Iterator[Line]:
    """The first process's end of a line, and another one's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = Peer(socket.create_connection(server.getsockname()))
        near = Peer(server.accept()[0])
    yield near, far
    near.close()
    far.close()


def told(line: Line) -> list[tuple[str, object]]:
    """What the first process has heard by the end of the line, signs of life left out."""
    near, far = line
    far.flush(PATIENCE)
    far.close()
    until(lambda: near.over is not None, "the end of the line")
    found = []
    while (message := near.hear()) is not None:
        found.append((message[0]["do"], message[0].get("status")))
    return [one for one in found if one[0] != "beat"]


def asked_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_who_is_asked_to_end_before_its_rank_began_answers_too(line: Line, tmp_path: Path) -> None:
    near, far = line
    with Pool() as pool:
        follower = Follower(TWO, far, pool, tmp_path)
        asked_to_end()
        for message in ({"do": "begin"}, {"do": "end", "grace": 0.1}, {"do": "over", "status": 130}):
            near.tell(message)
        assert follower.run() == 130
    assert told(line) == [("interrupted", None), ("ended", -signal.SIGTERM)]


class Struck(Pool):
    """Ends its processes just when somebody asks this one to end."""

    def end(self, processes: list[Process], grace: float = 1.0) -> None:
        asked_to_end()
        super().end(processes, grace)


def test_who_is_asked_to_end_while_it_ends_its_rank_answers_all_the_same(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = line
    monkeypatch.setattr(pools, "PRELOAD", ())
    with Struck() as pool:
        follower = Follower(TWO, far, pool, tmp_path)
        follower.process = rank = pool.start("tests.launch.idling:idle", ["60"])
        until(lambda: pool.poll(0.05) or rank.pid, "the rank")
        for message in ({"do": "end", "grace": 30.0}, {"do": "over", "status": 130}):
            near.tell(message)
        assert follower.run() == 130
    assert ("ended", -signal.SIGTERM) in told(line)


@pytest.fixture
def first(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Inside, Peer]]:
    """The first process of a world of two, and the other one's end of their line."""
    monkeypatch.setattr(pools, "PRELOAD", ())
    port = support.free_port()
    made = Inside(World("torchrun", 0, 2, 0, 2, "job"), {"MASTER_ADDR": meeting.LOOPBACK, "MASTER_PORT": str(port)})
    found: list[Peer] = []

    def come() -> None:
        found.append(reach(Spot((meeting.LOOPBACK,), (port,)), TWO.token, lambda: None))
        found[0].tell(hello(TWO))

    comes = threading.Thread(target=come)
    comes.start()
    made.warm()
    assert made.cores > 0, "all have come"
    comes.join()
    yield made, found[0]
    made.close()
    found[0].close()


def test_the_signal_that_follows_anothers_does_not_break_off_the_clearing_up(first: tuple[Inside, Peer]) -> None:
    launcher, other = first
    other.tell({"do": "interrupted"})
    with pytest.raises(KeyboardInterrupt):
        until(lambda: launcher.poll(0.02), "the word of the other process")
    asked_to_end()
    assert not launcher.failed_first([])


def dead(status: int) -> Process:
    return Process(0, status=status)


Case = tuple[dict[int, Process], set[int], dict[int, str], bool]
CASES: dict[str, Callable[[], Case]] = {
    "nothing has ended": lambda: ({0: Process(0), 1: Process(1)}, set(), {}, False),
    "a rank failed": lambda: ({0: dead(1), 1: Process(1)}, set(), {0: "ValueError: unwell"}, True),
    "a rank failed, then the others were asked": lambda: ({0: dead(1), 1: Process(1)}, {1}, {0: "ValueError: unwell"}, True),
    "a rank was killed": lambda: ({0: Process(0), 1: dead(-9)}, set(), {}, True),
    "the ranks were asked to end too": lambda: ({0: dead(-15), 1: dead(-15)}, set(), {}, False),
    "who was asked is gone": lambda: ({0: Process(0), 1: dead(-9)}, {1}, {}, False),
    "a rank saw one go that was asked": lambda: ({0: dead(1), 1: Process(1)}, {1}, {0: CLOSED}, False),
    "a rank saw one go that nobody had asked": lambda: ({0: dead(1), 1: Process(1)}, set(), {0: CLOSED}, True),
}


@pytest.mark.parametrize("name", CASES)
def test_a_world_has_failed_where_a_rank_did_by_itself(name: str, tmp_path: Path) -> None:
    processes, left, written, expected = CASES[name]()
    folder = records.create(tmp_path, "run")
    for rank, error in written.items():
        records.write_failure(folder, rank, Failure(error=error, rank=rank))
    assert by_themselves(folder, processes, left) is expected
