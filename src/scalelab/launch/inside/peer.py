"""A line between the first process of a world and another one: messages over TCP, with a sign of life every few seconds."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import time
from collections.abc import Callable

from scalelab.errors import RunError
from scalelab.launch.hosts.channel import SILENT, Message, Reader, Writer
from scalelab.launch.inside.meeting import LOOPBACK, Spot

PATIENCE = 120.0
"""seconds for all processes of a world to start and find the first"""
GREETING = 3.0
"""seconds for who listens at a port to say that it is of this world"""
AGAIN = 0.2
"""seconds between two rounds over the places where the first process may be"""


class Peer:
    """Another process of the world, reached over a TCP connection."""

    def __init__(self, line: socket.socket) -> None:
        line.settimeout(None)
        self.own, self.far = (address[0].removeprefix("::ffff:") for address in (line.getsockname(), line.getpeername()))
        """addresses of this end and of the other one"""
        self.over: str | None = None
        """why nothing more comes, where that is so"""
        self.lost: float | None = None
        """when that was heard of: seconds since the epoch"""
        self._heard: queue.SimpleQueue[tuple[Message, bytes]] = queue.SimpleQueue()
        self._writer = Writer(os.dup(line.fileno()))
        self._reader = Reader(os.dup(line.fileno()), self._take, self._end)
        self._line = line
        self._reader.start()

    def tell(self, message: Message, body: bytes = b"") -> None:
        """Send a message; one that can't arrive any more is dropped."""
        self._writer.send(message, body)

    @property
    def done(self) -> bool:
        """Whether nothing more comes, and all that came was heard."""
        return self.over is not None and self._heard.empty()  # in this order: the last message comes before the end

    def hear(self, timeout: float = 0.0) -> tuple[Message, bytes] | None:
        """The next message, waited for at most ``timeout`` seconds; "came" of it says when."""
        if self._reader.silent() > SILENT:
            self._end(f"not a word for {SILENT:g} seconds")
        with contextlib.suppress(queue.Empty):
            return self._heard.get(timeout=timeout) if timeout > 0 else self._heard.get_nowait()
        return None

    def _take(self, message: Message, body: bytes) -> None:
        self._heard.put(({**message, "came": time.time()}, body))

    def _end(self, why: str) -> None:
        if self.over is None:
            self.lost = time.time()
            self.over = why or "the line closed"

    def flush(self, seconds: float = 1.0) -> None:
        """Wait until all that was told has been sent, for so many ``seconds`` at most."""
        deadline = time.monotonic() + seconds
        while self._writer.waiting and self.over is None and time.monotonic() < deadline:
            time.sleep(0.005)

    def close(self) -> None:
        """Send what waits, and end the line."""
        self._writer.close()
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()


def greet(listener: socket.socket, token: str) -> Peer:
    """Take in the next process that came to ``listener``, and say who is here."""
    line, _ = listener.accept()
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):  # it is gone again, which its reader says
        line.sendall(_greeting(token))
    return Peer(line)


def reach(spot: Spot, token: str, tick: Callable[[], None]) -> Peer:
    """A line to the first process, wherever at ``spot`` it is. ``tick`` is called between tries. Raises RunError."""
    deadline, why = time.monotonic() + PATIENCE, "nobody is there"
    while time.monotonic() < deadline:
        for host in spot.hosts:
            for port in spot.ports:
                try:
                    return _try(host, port, token)
                except OSError as error:
                    why = f"{host} port {port}: {error.strerror or error}"
        tick()
        time.sleep(AGAIN)
    raise RunError(f"rank 0 was not found within {PATIENCE:g} seconds ({why})")


def _try(host: str, port: int, token: str) -> Peer:
    line = socket.create_connection((LOOPBACK if host == socket.gethostname() else host, port), GREETING)
    try:
        wanted, said = _greeting(token), b""
        while len(said) < len(wanted):
            part = line.recv(len(wanted) - len(said))
            if not part:
                break
            said += part
        if said != wanted:
            raise OSError("who listens there is not of this world")
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        line.close()
        raise
    return Peer(line)


def _greeting(token: str) -> bytes:
    return f"scalelab {token}\n".encode()
