"""The launching host's end of one agent: ssh started, messages sent, answers waited for, its loss noticed."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import Any

from scalelab.errors import NotApplicable, RunError, ScalelabError
from scalelab.launch.hosts.channel import MARK, SILENT, Message, Reader, Writer
from scalelab.launch.hosts.clocks import ahead
from scalelab.launch.hosts.placement import Place, over_ssh
from scalelab.launch.signals import named

ANSWER = 60.0
"""seconds that a short question may take on a busy host, its agent's start included"""
KINDS = {kind.__name__: kind for kind in (ScalelabError, RunError, NotApplicable)}


class Lost(RunError):
    """A host can't be heard any more, or never could."""


def command(place: Place, run_id: str, ssh_args: Sequence[str] = ()) -> list[str]:
    """What starts a host's agent. All that a user has said travels through its stdin, but the interpreter, which is quoted."""
    return over_ssh(place, ["-m", "scalelab.launch.hosts.agent", run_id], ssh_args)


class Agent:
    """One host. ``post`` and ``request`` ask it; ``heard(agent, message, body)`` gets what it says unasked, in the thread that reads.

    ``say`` gets each line that its processes write to their standard error.
    """

    def __init__(
        self,
        place: Place,
        run_id: str,
        ssh_args: Sequence[str],
        heard: Callable[[Agent, Message, bytes], None],
        say: Callable[[str], None],
    ) -> None:
        self.place, self.run_id = place, run_id
        self.hello: dict[str, Any] = {}
        """what the agent has told of its host; empty until it is connected"""
        self.clock = (0.0, 0.0)
        """(seconds by which its clock is ahead of this host's, how far off that may be)"""
        self.lost: str | None = None
        self.said: list[str] = []
        """on its standard error, before it was connected"""
        self.has: dict[tuple[str, str], tuple[int, ...]] = {}
        """files that were sent there, by run and name, as they were"""
        self._heard, self._say = heard, say
        self._ids = itertools.count()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._before, self._closing = bytearray(), False
        self._begun = threading.Event()
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._ssh = subprocess.Popen(  # Ctrl-C at the terminal is the launcher's to act upon
            command(place, run_id, ssh_args), start_new_session=True, bufsize=0, **options
        )
        assert self._ssh.stdin is not None
        assert self._ssh.stdout is not None
        self._writer = Writer(os.dup(self._ssh.stdin.fileno()))  # which closes it when it has said all
        self._ssh.stdin.close()
        self._listener = threading.Thread(target=self._listen, name=f"scalelab-{place.host}", daemon=True)
        self._listener.start()
        self._reader = Reader(self._ssh.stdout.fileno(), self._take, self._over, self._first)
        self._reader.start()

    def connect(self, cwd: str) -> None:
        """Until the agent is there: it works in ``cwd``, where there is such a folder. Raises Lost with ssh's own words."""
        self.hello = self.request({"do": "hello", "cwd": cwd, "env": dict(self.place.env)})
        self.measure()

    def measure(self) -> None:
        """Compare its clock with this host's."""
        self.clock = ahead(lambda: float(self.request({"do": "time"})["now"]))

    def post(self, message: Message, body: bytes = b"") -> Future[dict[str, Any]]:
        """Ask, and go on: the answer will be in the future, or Lost, or the error that the agent tells."""
        future: Future[dict[str, Any]] = Future()
        with self._lock:
            if self.lost is not None:
                future.set_exception(Lost(f"{self.place.host}: {self.lost}"))
                return future
            number = next(self._ids)
            self._waiting[number] = future
        self._writer.send({**message, "id": number}, body)
        return future

    def tell(self, message: Message, body: bytes = b"") -> None:
        """Say something that has no answer."""
        self._writer.send(message, body)

    def request(self, message: Message, body: bytes = b"", timeout: float = ANSWER) -> dict[str, Any]:
        """Ask something short, and wait. Raises what ``post``'s future holds; a host that does not answer is lost."""
        try:
            return self.post(message, body).result(timeout)
        except Late:
            self.lose(f"it did not answer within {timeout:g} seconds")
            raise Lost(f"{self.place.host}: {self.lost}") from None

    @property
    def waiting(self) -> int:
        """Bytes that were handed in and are not sent yet."""
        return self._writer.waiting

    @property
    def silent(self) -> float:
        """Seconds since it was last heard."""
        return self._reader.silent()

    def be_patient(self, seconds: float) -> None:
        """Have the agent wait so long for a sign of life before it ends what it started."""
        self.tell({"do": "patience", "seconds": seconds})

    def check(self) -> None:
        """Give the host up where it has been silent for ``SILENT`` seconds."""
        if self.lost is None and self._begun.is_set() and self._reader.silent() > SILENT:
            self.lose(f"no sign of life for {SILENT:g} seconds: the host, or the network to it, is down")

    def lose(self, why: str) -> None:
        """Give it up: all that waits for it is told so."""
        with self._lock:
            if self.lost is not None:
                return
            self.lost = why
            waiting, self._waiting = list(self._waiting.values()), {}
        for future in waiting:
            future.set_exception(Lost(f"{self.place.host}: {why}"))
        self._ssh.kill()

    def close(self, wait: float = 10.0) -> None:
        """Close the line: the agent ends what it started, then itself."""
        self._closing = True
        self._writer.close(0.5)
        try:
            self._ssh.wait(0.0 if self.lost is not None else wait)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()

    def _first(self, data: bytes) -> bytes | None:
        """What comes after the agent's mark; before it, the login shell may have said something."""
        self._before += data
        mark = MARK + self.run_id.encode() + b"\n"
        at = self._before.find(mark)
        if at < 0:
            del self._before[: -len(mark)]
            return None
        self._begun.set()
        return bytes(self._before[at + len(mark) :])

    def _take(self, message: Message, body: bytes) -> None:
        if message.get("do") == "leave":
            self.lose(message["why"])
            return
        if message.get("do") != "reply":
            self._heard(self, message, body)
            return
        with self._lock:
            future = self._waiting.pop(message["id"], None)
        if future is None:
            return
        if "error" in message:
            kind = KINDS.get(message["kind"], ScalelabError)
            future.set_exception(kind(message["error"]))
        else:
            future.set_result(message)

    def _over(self, why: str) -> None:
        """Called by the thread that reads, when nothing more will come."""
        if self._closing:
            return
        try:
            status = self._ssh.wait(5.0)
        except subprocess.TimeoutExpired:
            status = 0
        self._listener.join(1.0)
        self.lose(self._words(status, why))

    def _words(self, status: int, why: str) -> str:
        """Why there is no connection: ssh's own last words, where it said some."""
        last = next((line for line in reversed(self.said) if line.strip()), "")
        if not self._begun.is_set():
            ended = "ssh" if status == 255 or status < 0 else f"{self.place.python or sys.executable} there"
            return last or f"{ended} ended with exit status {status}, without a word"
        told = f": {last}" if last and status == 255 else ""
        how = f"signal {named(-status)}" if status < 0 else f"exit status {status}"
        return f"the connection to it ended (ssh: {how}{told}){f', {why}' if why else ''}"

    def _listen(self) -> None:
        """Take in what comes on standard error."""
        assert self._ssh.stderr is not None
        for line in iter(self._ssh.stderr.readline, b""):
            text = line.decode(errors="replace").rstrip("\r\n")
            self.said = [*self.said[-40:], text]
            if self._begun.is_set() and text.strip() and not self._closing:
                self._say(f"{self.place.host} | {text}")
