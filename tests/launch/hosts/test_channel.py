"""Messages over pipes: whole, in order, however the bytes are cut; silence, ends and strangers are noticed."""

from __future__ import annotations

import os
import queue
import random
import threading
import time
from collections.abc import Iterator

import pytest

from scalelab.launch.hosts import channel
from scalelab.launch.hosts.channel import Broken, Decoder, Message, Reader, Writer, encode
from tests.waiting import PATIENCE, SOON, until

MESSAGES: list[tuple[Message, bytes]] = [
    ({"do": "a"}, b""),
    ({"do": "ü\n", "list": [1, None]}, b"\n\0{}" * 7),
    ({"do": "c", "size": 99}, b"x" * 100_000),
    ({"do": "d"}, b'{"do":"no message","size":3}\n'),
]


@pytest.mark.parametrize("seed", range(5))
def test_messages_are_whole_however_the_bytes_are_cut(seed: int) -> None:
    cut, decoder, found = random.Random(seed), Decoder(), []
    data = b"".join(encode(message, body) for message, body in MESSAGES)
    while data:
        size = cut.choice([1, 2, 7, 1000, 70_000])
        found += list(decoder.feed(data[:size]))
        data = data[size:]
    assert found == [({**message, "size": len(body)}, body) for message, body in MESSAGES]


@pytest.mark.parametrize(
    "line", [b"Welcome to h2\n", b"[]\n", b'{"do":"a"}\n', b'{"size":-1}\n', b'{"size":"7"}\n', b"\xff\xfe\n"]
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(Broken):
        list(Decoder().feed(line))


def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "HEADER", 1000)
    with pytest.raises(Broken, match="without an end"):
        list(Decoder().feed(b"x" * 1001))


class Line:
    """Both ends of a pipe, with what arrived and why it ended."""

    def __init__(self) -> None:
        self.source, self.sink = os.pipe()
        self.heard: queue.Queue[tuple[Message, bytes]] = queue.Queue()
        self.over: queue.Queue[str] = queue.Queue()
        self.reader = Reader(self.source, lambda message, body: self.heard.put((message, body)), self.over.put)
        self.reader.start()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    os.close(line.source)


def test_what_is_sent_arrives_in_order_and_then_the_end_is_heard(line: Line) -> None:
    writer = Writer(line.sink)
    for number in range(100):
        writer.send({"do": number}, bytes(number * 1000))
    writer.close(PATIENCE)
    assert line.over.get(timeout=PATIENCE) == ""
    assert [line.heard.get(timeout=PATIENCE) for _ in range(100)] == [
        ({"do": n, "size": n * 1000}, bytes(n * 1000)) for n in range(100)
    ]


def test_a_writer_never_blocks_and_tells_what_waits() -> None:
    source, sink = os.pipe()
    writer = Writer(sink)
    began = time.monotonic()
    writer.send({"do": "much"}, bytes(10_000_000))  # nobody reads; a pipe takes 64 KiB
    writer.close(0.1)
    assert time.monotonic() - began < SOON
    assert writer.waiting > 10_000_000
    os.close(source)


def test_both_ends_tell_that_they_live(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "PING", 0.05)
    writer = Writer(line.sink)
    time.sleep(0.5)
    until(lambda: line.reader.silent() < 0.3, "a sign of life")
    assert line.heard.empty()  # a sign of life is nothing to act upon
    writer.close()
    line.over.get(timeout=PATIENCE)


def test_a_stranger_is_named(line: Line) -> None:
    os.write(line.sink, b"Last login: today\n")
    assert line.over.get(timeout=PATIENCE) == "not a message: Last login: today"
    os.close(line.sink)


def test_an_end_that_is_busy_with_what_it_heard_hears_no_silence() -> None:
    source, sink = os.pipe()
    begun, free = threading.Event(), threading.Event()

    def heard(message: channel.Message, body: bytes) -> None:  # a slow disk, a terminal that was stopped by Ctrl-S
        begun.set()
        free.wait(PATIENCE)

    reader = Reader(source, heard, lambda why: None)
    reader.start()
    os.write(sink, channel.encode({"do": "much"}))
    assert begun.wait(PATIENCE)
    time.sleep(0.3)
    assert reader.silent() == 0.0
    free.set()
    until(lambda: reader.silent() > 1.5, "the next silence")  # now it listens, and counts on
    os.close(sink)
