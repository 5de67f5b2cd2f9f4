"""The process that runs tasks on a machine, seen from the launching one: ``sweep.task --serve``, here or by ssh."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scalelab.errors import RunError
from scalelab.launch.hosts.channel import Broken, Decoder, Writer, write_all
from scalelab.launch.hosts.placement import Place, over_ssh
from scalelab.sweep import keeping
from scalelab.sweep.job import Job, to_wire

TASK = ("-P", "-m", "scalelab.sweep.task", "--serve")
"""-P: what lies in the folder where one stands is no part of scalelab"""
ALIVE = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
"""a connection that is cut is given up after 15 s, as at the other end (``channel.SILENT``)"""

FIRST_WORD = b'{"host":'
"""how the first message of a crew begins"""
MOST_GREETING = 1 << 16


def here() -> list[str]:
    """The command of a crew on this machine."""
    return [sys.executable, *TASK]


def there(place: Place) -> list[str]:
    """The command of a crew on another host: no user's text in it but quoted."""
    return over_ssh(place, TASK, options=ALIVE)


class Crew:
    """A runner of tasks. What comes from it is read by ``hear`` whenever ``descriptor`` is readable."""

    def __init__(
        self, name: str, command: Sequence[str], told: dict[str, Any], folder: Path, env: dict[str, str] | None = None
    ) -> None:
        self.name, self.folder, self.env = name, folder, env or {}
        self.mirrored = told["folder"] is None
        self.slots = 0
        """tasks that it may run at once: known when it has said its first word"""
        self.hello: dict[str, Any] | None = None
        self.running: dict[int, Job] = {}
        self.gone: str | None = None
        """why it is no more"""
        self._decoder = Decoder()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the process
        self._outputs: dict[int, int] = {}
        self._spoilt: dict[int, str] = {}
        self._begun, self._before = False, b""
        # A session of its own: Ctrl-C at the terminal reaches the launching process alone.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True, bufsize=0
        )
        assert self.process.stdin is not None, "it is a pipe"
        self._writer = Writer(os.dup(self.process.stdin.fileno()))  # a thread: a crew that does not listen stops nobody
        self.process.stdin.close()
        self.say(told)

    @property
    def descriptor(self) -> int:
        """Of the pipe that it answers on; readable when ``hear`` has something to read."""
        assert self.process.stdout is not None, "it is a pipe"
        return self.process.stdout.fileno()

    @property
    def free(self) -> int:
        """Tasks that it could begin now."""
        return 0 if self.gone else self.slots - len(self.running)

    def run(self, job: Job) -> None:
        """Tell it to begin a task."""
        self.running[job.task] = job
        self.say({"run": to_wire(job) | {"env": {**job.env, **self.env}}})

    def say(self, message: dict[str, Any]) -> None:
        """Tell it something; where it is gone, ``hear`` finds out."""
        self._writer.send(message)

    @property
    def lost(self) -> str | None:
        """Why it has ended; None while it lives."""
        return self.gone

    @property
    def waiting(self) -> int:
        """Bytes that were handed in and are not sent yet."""
        return self._writer.waiting

    def be_patient(self, seconds: float) -> None:
        """Have it wait so long for a sign of life before it ends its tasks."""
        self.say({"patience": seconds})

    def hear(self) -> list[dict[str, Any]]:
        """The records that came; empty and ``gone`` where nothing more will. What a task on another host wrote is kept here."""
        data = os.read(self.descriptor, 1 << 20)
        records: list[dict[str, Any]] = []
        try:
            for message, body in self._decoder.feed(self._after_greeting(data)):
                self._take(message, body, records)
        except Broken as error:
            self.process.kill()
            self.gone = f"it answered something else: {error}"
        if not data and self.gone is None:
            self.gone = self._last_words()
        return records

    def _after_greeting(self, data: bytes) -> bytes:
        """``data`` without what a login's start-up files print before the first word."""
        if self._begun:
            return data
        self._before += data
        place = self._before.find(FIRST_WORD)
        if place < 0:
            self._before = self._before[-MOST_GREETING:]
            return b""
        self._begun = True
        return self._before[place:]

    def hang_up(self) -> None:
        """Nothing more will be told: it ends its tasks, and itself."""
        self._writer.close()

    def close(self, seconds: float = 10.0) -> None:
        """Wait for its end; after so many ``seconds`` it is killed."""
        self.hang_up()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None, "it is a pipe"
        self.process.stdout.close()
        self._errors.close()
        for descriptor in self._outputs.values():
            os.close(descriptor)
        self._outputs.clear()

    def _take(self, message: dict[str, Any], body: bytes, records: list[dict[str, Any]]) -> None:
        if "output" in message:
            self._keep_output(message["output"], body)
        elif "record" in message:
            record = message["record"]
            if record["status"] != "running":
                self.running.pop(record["task"], None)
            records.append(self._kept(record) if self.mirrored else record)
        else:
            self.hello, self.slots = message, message["jobs"]

    def _kept(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record of a task on another host, written here; a task whose record could not be kept is not completed."""
        task = record["task"]
        if record["status"] == "running":
            self._keep_output(task, b"")
        elif task in self._outputs:
            os.close(self._outputs.pop(task))
        spoilt = self._spoilt.pop(task, None)
        if spoilt is not None and record["status"] == "completed":
            record |= {"status": "failed", "reason": f"its output could not be kept: {spoilt}"}
        try:
            keeping.keep(self.folder, record)
        except RunError as error:
            return record | {"status": "failed", "reason": f"its record could not be kept: {error}"}
        return record

    def _keep_output(self, task: int, body: bytes) -> None:
        try:
            if task not in self._outputs:
                path = keeping.output_of(self.folder, task)
                self._outputs[task] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            write_all(self._outputs[task], body)
        except OSError as error:  # such as of a full disk
            self._spoilt[task] = str(error.strerror)

    def _last_words(self) -> str:
        status = self.process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read()[-4096:].decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"it ended with {status}"
