"""A preloaded process that forks workers: torch is imported once for all trainings of a command.

Each training runs in fresh forks of a process that has imported much and computed nothing, so no state leaks from one
to the next. The server leads a process group of its own, so that Ctrl-C at the terminal reaches the launcher alone. It ends its
forks when the launcher's end of the socket closes, however that came about; the kernel ends them when it dies itself.
Each fork leads a process group of its own, so that what user code started in it (a decoder, a download) ends with it.

Protocol, JSON messages on a Unix seqpacket socket (the server's standard input):
    → {"id", "target": "module:function", "args": [...], "env": {...}, "log": path or null, "fd_env": name or null,
       "preload": modules to import before the fork, once for all that follow} (+ a file descriptor)
    → {"id", "signal"}: for the process of that request
    ← {"id", "pid"}, later {"id", "status": exit status or -signal}
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from typing import Any

MESSAGE = 1 << 16
PR_SET_PDEATHSIG = 1  # prctl(2)


def main(preload: list[str]) -> None:
    """Import ``preload``, then serve until the launcher goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher ends ranks one by one, and the server by closing the socket
    launcher = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what user code prints must not mix with the document that --json prints
    for module in preload:
        importlib.import_module(module)
    gc.freeze()  # forks then share these objects' pages: the collector would write to each
    Server(launcher).serve()
    sys.stderr.flush()
    os._exit(0)  # the interpreter's own end would only print what extension modules leak


class Server:
    """Forks on request and reports exits."""

    def __init__(self, launcher: socket.socket) -> None:
        self.launcher = launcher
        self.forks: dict[int, tuple[int, int]] = {}
        """pidfd → (request id, pid)"""
        self.selector = selectors.DefaultSelector()
        self.selector.register(launcher, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until the launcher's end closes; then end every fork."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.launcher:
                    message, fds, _, _ = socket.recv_fds(self.launcher, MESSAGE, 1)
                    if not message:
                        self._end()
                        return
                    request = json.loads(message)
                    if "signal" in request:
                        self._signal(request["id"], request["signal"])
                    else:
                        _import(request["preload"])
                        self._fork(request, fds)
                else:
                    self._reap(key.fd)

    def _fork(self, request: dict[str, Any], fds: list[int]) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setsid()
                _die_with(server)
                self.selector.close()
                self.launcher.close()
                status = _call(request, fds)
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(OSError):  # of a full disk; the status must be told all the same
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(status)
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self.forks[pidfd] = (request["id"], pid)
        self.selector.register(pidfd, selectors.EVENT_READ)
        self._tell({"id": request["id"], "pid": pid})

    def _signal(self, request: int, sign: int) -> None:
        for pidfd, (held, pid) in self.forks.items():
            if held == request:
                _signal_group(pidfd, pid, sign)

    def _reap(self, pidfd: int) -> None:
        request, pid = self.forks.pop(pidfd)
        self.selector.unregister(pidfd)
        _signal_group(pidfd, pid, signal.SIGKILL)  # what it started and left running
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._tell({"id": request, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the launcher is gone: the loop reads that next, and ends the forks
            self.launcher.send(json.dumps(message).encode())

    def _end(self) -> None:
        for pidfd, (_, pid) in self.forks.items():
            _signal_group(pidfd, pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _import(modules: list[str]) -> None:
    """What a fork would import by itself; where that fails, the fork says so when it tries."""
    new = [module for module in modules if module not in sys.modules]
    for module in new:
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(module)
    if new:
        gc.freeze()


def _signal_group(pidfd: int, pid: int, sign: int) -> None:
    """Signal a fork and all that it started. Only before it is reaped: until then its id can't come to mean another process."""
    try:
        os.killpg(pid, sign)
    except ProcessLookupError:  # it has not come to lead its group yet
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, sign)


def _call(request: dict[str, Any], fds: list[int]) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.update(request["env"])
    if request["fd_env"] and fds:
        os.environ[request["fd_env"]] = str(fds[0])
    if request["log"] is not None:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
    module, _, function = request["target"].partition(":")
    return int(getattr(importlib.import_module(module), function)(*request["args"]) or 0)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
