"""Messages over two pipes: a line of JSON, then as many bytes as its "size" says.

Each end reads in a thread and writes in another one, so that neither a slow line nor a dead one ever stops the program. Both tell each
other every few seconds that they live; any byte that arrives is a sign of life.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

Message = dict[str, Any]
PING = 2.0
"""seconds between two signs of life"""
SILENT = 15.0
"""seconds without one after which the other end is given up"""
LISTEN = 1.0
"""seconds that a reader waits before it looks at the clock again"""
CHUNK = 1 << 18
"""bytes of a file that go into one message"""
HEADER = 1 << 24
"""bytes; a longer line is no message"""
MARK = b"scalelab agent "
"""and the run's id: a line before an agent's first message, after whatever the login shell says"""
ALIVE: Message = {"do": "alive"}


class Broken(Exception):
    """What came is no message: the other end speaks another language."""


def encode(message: Message, body: bytes = b"") -> bytes:
    """A message as bytes: its header as a line of JSON, then its body."""
    return json.dumps({**message, "size": len(body)}, separators=(",", ":")).encode() + b"\n" + body


class Decoder:
    """Bytes, however they are cut, become messages."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._header: Message | None = None

    def feed(self, data: bytes) -> Iterator[tuple[Message, bytes]]:
        """The messages that are whole now. Raises Broken."""
        self._held += data
        while True:
            if self._header is None and not self._head():
                return
            assert self._header is not None
            size = self._header["size"]
            if len(self._held) < size:
                return
            message, body = self._header, bytes(self._held[:size])
            del self._held[:size]
            self._header = None
            yield message, body

    def _head(self) -> bool:
        """Take the next header, where its line is whole."""
        end = self._held.find(b"\n")
        if end < 0:
            if len(self._held) > HEADER:
                raise Broken("a line without an end")
            return False
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        try:
            header = json.loads(line)
            size = header["size"]
        except (ValueError, TypeError, KeyError):
            raise Broken(f"not a message: {line[:200].decode(errors='replace')}") from None
        if not isinstance(size, int) or size < 0:
            raise Broken(f"not a size: {size!r}")
        self._header = header
        return True


class Writer:
    """Sends messages in a thread of its own, and a sign of life where there is nothing else to send."""

    def __init__(self, descriptor: int) -> None:
        self.waiting = 0
        """bytes handed in and not sent yet"""
        self._descriptor = descriptor
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a signal's handler sends too, whatever it interrupts
        self._thread = threading.Thread(target=self._run, name="scalelab-writer", daemon=True)
        self._thread.start()

    def send(self, message: Message, body: bytes = b"") -> None:
        """Hand a message in; it goes out after those before it. What can't be sent any more is dropped."""
        data = encode(message, body)
        with self._lock:
            self.waiting += len(data)
        self._queue.put(data)

    def close(self, seconds: float = 1.0) -> None:
        """Send what is waiting, for so many ``seconds`` at most, then close the line."""
        self._queue.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the other end is gone: the reader hears of it
            while (data := self._next()) is not None:
                write_all(self._descriptor, data)
                with self._lock:
                    self.waiting -= len(data)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _next(self) -> bytes | None:
        try:
            return self._queue.get(timeout=PING)
        except queue.Empty:
            data = encode(ALIVE)
            with self._lock:
                self.waiting += len(data)
            return data


class Reader:
    """Hands each message that arrives to ``heard(message, body)``, in a thread of its own.

    ``over(why)`` is called once, by that thread, when nothing more can come. ``before(data)`` takes what comes before the other end has
    said its first word, and returns what of it belongs to messages, or None while that word has not come.
    """

    def __init__(
        self,
        descriptor: int,
        heard: Callable[[Message, bytes], None],
        over: Callable[[str], None],
        before: Callable[[bytes], bytes | None] | None = None,
    ) -> None:
        self._waited, self._since = 0.0, time.monotonic()
        self._listening = False
        self._descriptor, self._heard, self._over, self._before = descriptor, heard, over, before
        self._thread = threading.Thread(target=self._run, name="scalelab-reader", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._since = time.monotonic()
        self._thread.start()

    def silent(self) -> float:
        """Seconds for which nothing came, though it was listened: neither those that ``heard`` takes, for which the line is full of what
        was said meanwhile, nor those for which this process, or its machine, was stopped.
        """
        return self._waited + min(time.monotonic() - self._since, LISTEN) if self._listening else 0.0

    def _run(self) -> None:
        decoder, why = Decoder(), ""
        try:
            while data := self._read():
                if self._before is not None:
                    begun = self._before(data)
                    if begun is None:
                        continue
                    self._before, data = None, begun
                for message, body in decoder.feed(data):
                    if message.get("do") != ALIVE["do"]:
                        self._heard(message, body)
        except (OSError, Broken) as error:
            why = str(error)
        self._over(why)

    def _read(self) -> bytes:
        """What comes next; nothing at the end of the line."""
        line = select.poll()
        line.register(self._descriptor, select.POLLIN)
        self._waited, self._since, self._listening = 0.0, time.monotonic(), True
        while not line.poll(LISTEN * 1000):
            self._waited, self._since = self.silent(), time.monotonic()
        self._listening = False
        return os.read(self._descriptor, 1 << 20)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, in as many calls as it takes. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
