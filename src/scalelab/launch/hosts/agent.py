"""One host's part of a command over ssh: ``python -m scalelab.launch.hosts.agent RUN_ID``, spoken to through its stdin and stdout.

It starts ranks in a scratch folder, sends back what they write, and answers questions about its host. It ends all that it started, and
itself, when its line closes or has been silent for ``channel.SILENT`` seconds, however that came about; longer where it was told so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

import psutil

from scalelab.errors import ScalelabError
from scalelab.launch.hosts.channel import MARK, SILENT, Message, Reader, Writer
from scalelab.launch.hosts.looking import ANSWERS
from scalelab.launch.hosts.ranks import Ranks
from scalelab.launch.hosts.serving import REQUESTS
from scalelab.launch.pool import Pool
from scalelab.launch.signals import ENDING

RUN_ID = "SCALELAB_RUN_ID"
"""environment variable of all that an agent starts: which command it belongs to"""
COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""environment variable: where torch keeps what it compiles"""
PREFIX = "scalelab-agent-"
EVERY = 0.05
"""seconds between two looks at the ranks"""


class Agent:
    """What a host knows of a command. Handlers of ``REQUESTS`` get it."""

    def __init__(self, run_id: str, source: int, sink: int) -> None:
        self.run_id, self.pool = run_id, Pool()
        os.environ[RUN_ID] = run_id
        self.training: Ranks | None = None
        self.held: dict[int, object] = {}
        """listening sockets, by their ports"""
        self.scratch = Path(tempfile.gettempdir(), "none")
        self._lock = -1
        self.writer = Writer(sink)
        self._inbox: queue.SimpleQueue[tuple[Message, bytes]] = queue.SimpleQueue()
        self._reader = Reader(source, self._heard, lambda why: self.leave())
        self._leaving = threading.Lock()
        self.left = False
        """whether the end has begun: what fails from then on, because it was ended, is nobody's news"""
        self._patience = SILENT

    def settle(self) -> None:
        """Make the scratch folder, now that TMPDIR is known. torch makes a cache too, even where nothing is compiled."""
        self.scratch, self._lock = scratch()
        os.environ.setdefault(COMPILED, str(self.scratch / ".compiled"))  # else it stays in TMPDIR

    def folder(self, run: str) -> Path:
        """Of a run here. Raises ScalelabError for a name that is none."""
        if run != Path(run).name or run.startswith("."):
            raise ScalelabError(f"{run!r} is not the name of a run")
        return self.scratch / run

    def serve(self) -> None:
        """Until the line closes."""
        self._reader.start()
        threading.Thread(target=self._watch, name="scalelab-watch", daemon=True).start()
        while True:
            try:
                message, body = self._inbox.get(timeout=EVERY if self.training else 1.0)
            except queue.Empty:
                pass
            else:
                self._answer(message, body)
            if self.training is not None and not self.training.tick():
                self.training = None

    def leave(self) -> None:
        """End everything that was started, and this process. Called by whichever thread knows first; it does not return."""
        with self._leaving:
            self.left = True
            try:
                self.pool.close()
                end_all(self.run_id)
                shutil.rmtree(self.scratch, ignore_errors=True)
            finally:
                os._exit(0)

    def leave_on(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler. A second one would wait for the first one's lock, in the same thread, for ever."""
        for sign in ENDING:
            signal.signal(sign, signal.SIG_IGN)
        self.leave()

    def _heard(self, message: Message, body: bytes) -> None:
        """By the thread that reads: the time is told at once, as is how long silence may last; all else waits for its turn."""
        if message.get("do") == "time":
            self.writer.send({"do": "reply", "id": message["id"], "now": time.time()})
        elif message.get("do") == "patience":
            self._patience = message["seconds"]
        else:
            self._inbox.put((message, body))

    def _answer(self, message: Message, body: bytes) -> None:
        try:
            known = REQUESTS.get(message["do"])
            reply = known(self, message, body) if known else {"answer": ANSWERS[message["do"]](message)}
        except ScalelabError as error:
            reply = {"error": str(error), "kind": type(error).__name__}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}", "kind": ""}
        if "id" in message:  # else nobody waits to hear
            self.writer.send({"do": "reply", "id": message["id"], **reply})

    def _watch(self) -> None:
        while self._reader.silent() < self._patience:
            time.sleep(1.0)
        heard = f"it heard nothing from here for {self._patience:g} seconds, and ended its ranks"
        self.writer.send({"do": "leave", "why": f"{heard}: this command was stopped, or the network was down"})
        self.writer.close()
        self.leave()


def scratch() -> tuple[Path, int]:
    """A folder for this process, and the descriptor that holds it; what killed agents have left is removed."""
    place = Path(tempfile.gettempdir())
    for old in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            held = _hold(old)
            shutil.rmtree(old, ignore_errors=True)
            os.close(held)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(OSError):  # another agent that starts just now may have taken it for one that was left
            held = _hold(folder)
            if folder.exists():
                return folder, held
            os.close(held)


def _hold(folder: Path) -> int:
    """Raises OSError where another process holds it, or another user owns it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise PermissionError("another user's")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def end_all(run_id: str) -> None:
    """Kill what of this run still lives and is no process group of a rank: what a rank started in a session of its own."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(RUN_ID) == run_id:
                process.kill()


def main(run_id: str) -> None:
    """Serve the launching host."""
    with contextlib.suppress(OSError):
        os.setsid()
    source, sink, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what is printed here must not come between the messages
    os.write(sink, b"\n" + MARK + run_id.encode() + b"\n")
    agent = Agent(run_id, source, sink)
    for sign in ENDING:
        signal.signal(sign, agent.leave_on)
    try:
        agent.serve()
    except BaseException:
        if not agent.left:
            traceback.print_exc()
    finally:
        agent.leave_on(0, None)


if __name__ == "__main__":
    main(sys.argv[1])
