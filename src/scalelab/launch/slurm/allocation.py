"""The launcher inside a job: all ranks by one srun, over all hosts that Slurm gave."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from scalelab.batch import Derived
from scalelab.errors import ScalelabError
from scalelab.launch import environments
from scalelab.launch.launcher import Command, Launcher, Meeting, Process, Pulse
from scalelab.launch.pool import STACK, Pool
from scalelab.launch.slurm import rank, srun
from scalelab.launch.slurm.programs import call
from scalelab.launch.slurm.pulse import Samples
from scalelab.launch.slurm.requeue import standing
from scalelab.launch.slurm.rollcall import call_roll
from scalelab.launch.slurm.script import filename
from scalelab.measure.environment import STARTED
from scalelab.record.schema import Host
from scalelab.spec import Spec

JOB = {
    "id": "SLURM_JOB_ID", "hosts": "SLURM_JOB_NODELIST", "per_host": "SLURM_TASKS_PER_NODE", "cores": "SLURM_CPUS_ON_NODE",
    "cores_per_worker": "SLURM_CPUS_PER_TASK", "restarts": "SLURM_RESTART_COUNT", "array": "SLURM_ARRAY_JOB_ID",
    "task": "SLURM_ARRAY_TASK_ID",
}  # fmt: skip
"""what Slurm tells a job's script: https://slurm.schedmd.com/sbatch.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES"""
PORTS = range(20000, 32000)
"""below those that systems hand out by themselves (from 32768 on)"""
TRIES = 64
STOP_ON = "SIGUSR1,SIGTERM"
"""what asks ranks for a checkpoint and their end: the time limit by way of the script, and Slurm's own SIGTERM"""
UNPREPARED = (-signal.SIGTERM, -signal.SIGUSR1)
"""the end of a rank that was asked to stop before it listened: it was still starting"""
LAST = 1.0
"""seconds that srun's last words are waited for"""
HURRY = 0.2
"""the same where the ranks' time is over: what Slurm's SIGKILL leaves is for the record, and the step ends with the job anyway"""


class Allocation(Launcher):
    """The hosts of the Slurm job that this process is in. ``environ`` is what Slurm told the job's script.

    Raises ScalelabError outside of a job. ``stop()`` asks the ranks for a checkpoint and their end; ``deadline``, on the monotonic clock,
    is when they are given up on after that: KeyboardInterrupt.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        found = {meaning: (environ or os.environ).get(name, "") for meaning, name in JOB.items()}
        if not found["id"]:
            raise ScalelabError("this is no job of Slurm's: submit the script with sbatch")
        self.job = f"{found['array']}_{found['task']}" if found["task"] else found["id"]
        self._number = int(found["id"])
        self.restarts = int(found["restarts"] or 0)
        self.per_host = environments.tasks_per_host(found["per_host"] or "1")
        self.cores_per_worker = int(found["cores_per_worker"] or 1)
        self._cores = int(found["cores"] or 1)
        self.names = call(["scontrol", "show", "hostnames", found["hosts"]], outside=False).split()
        self.said: list[str] = []
        """srun's own words, line by line"""
        self.deadline: float | None = None
        self._asked = self._starting = False
        self._srun: subprocess.Popen[bytes] | None = None
        self._processes: list[Process] = []
        self._rest = b""
        self._pool: Pool | None = None

    @property
    def cores(self) -> int:
        """Cores that the job has on its first host."""
        return self._cores

    @property
    def workers(self) -> int:
        """As many as the job has tasks."""
        return sum(self.per_host)

    def workers_of(self, spec: Spec) -> list[int]:
        """One a task, on all hosts of the job."""
        if spec.workers != self.workers:
            raise ScalelabError(
                f"the job has {self.workers} tasks ({' + '.join(map(str, self.per_host))}) and the spec {spec.workers} workers; "
                "make --nodes x --ntasks-per-node of the script equal to workers of spec.yaml"
            )
        return self.per_host

    def hosts(self, spec: Spec) -> list[Host]:
        """What each host says of itself. Raises ScalelabError where they differ in version, or don't see the run's folder."""
        one_each = ["srun", f"--nodes={len(self.names)}", f"--ntasks={len(self.names)}", "--ntasks-per-node=1", "--mpi=none"]
        found = call_roll([*one_each, f"--cpus-per-task={self.cores_per_worker}"], self._seen, self.names)
        pairs = zip(found, self.workers_of(spec), strict=True)
        return [msgspec.structs.replace(host, workers=workers) for host, workers in pairs]

    _seen = Path(__file__)
    """a file that all hosts must see"""

    def on(self, folder: Path) -> Allocation:
        """This launcher for the run in ``folder``, which all hosts must see."""
        self._seen = folder / "spec.yaml"
        return self

    def warm(self) -> None:
        """Nothing takes long before srun."""

    def ask(self, target: str, spec: Spec, doing: str = "checking the spec") -> Any:
        """What ``target`` answers, on the job's first host."""
        self._pool = self._pool or Pool()
        return self._pool.ask(target, spec, doing)

    @contextmanager
    def reserve(self, spec: Spec) -> Iterator[Meeting]:
        """A port of the first host that is free now, by the job's id; srun can't hand over a socket that is bound."""
        address = "127.0.0.1" if len(self.names) == 1 else self.names[0]
        yield Meeting(address, free_port(self._number, spec.master_port))

    def commands(self, spec: Spec, derived: Derived) -> list[Command]:
        """The one srun that starts all ranks."""
        meeting = Meeting("127.0.0.1" if len(self.names) == 1 else self.names[0], spec.master_port or 0)
        return [Command(self.names[0], tuple(self._line(Path("RUN"), spec)), self._environment(spec, derived, meeting))]

    def start_ranks(self, folder: Path, spec: Spec, derived: Derived, meeting: Meeting, processes: list[Process]) -> None:
        """All ranks by one srun, on hosts in Slurm's order."""
        names = [name for name, workers in zip(self.names, self.per_host, strict=True) for _ in range(workers)]
        processes += [Process(number, host=name) for number, name in enumerate(names)]
        environment = {**os.environ, **self._environment(spec, derived, meeting), STARTED: str(time.time())}
        self._processes, self.said, self._rest = processes, [], b""
        self._starting = True  # from here on a signal asks the ranks, instead of breaking off what starts them
        self._srun = subprocess.Popen(self._line(folder, spec), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        if self._asked:  # it came meanwhile
            self.stop()

    def _line(self, folder: Path, spec: Spec) -> list[str]:
        return [
            "srun", "--kill-on-bad-exit=1", f"--nodes={len(self.names)}", f"--ntasks={spec.workers}", "--distribution=block",
            f"--cpus-per-task={self.cores_per_worker}", "--mpi=none", "--input=none", "--open-mode=append",
            f"--output={filename(folder)}/logs/rank-%t.txt", sys.executable, "-m", "scalelab.launch.slurm.rank", str(folder / "spec.yaml"),
        ]  # fmt: skip

    def _environment(self, spec: Spec, derived: Derived, meeting: Meeting) -> dict[str, str]:
        """What is the same for all ranks; ``rank.variables`` adds what is not."""
        return {
            "MASTER_ADDR": meeting.address, "MASTER_PORT": str(meeting.port or "FREE"), "OMP_NUM_THREADS": str(derived.threads),
            "SCALELAB_STOP_ON": STOP_ON, rank.SECOND: self.names[1] if len(self.names) > 1 else "",
        }  # fmt: skip

    @property
    def started(self) -> bool:
        """Whether ranks were started, or are just now."""
        return self._starting

    def stop(self) -> None:
        """Ask all ranks for a checkpoint and their end: srun passes the signal on."""
        self._asked = True
        if self._srun is not None and self._srun.poll() is None:
            self._srun.send_signal(signal.SIGUSR1)

    def poll(self, timeout: float) -> None:
        """Take in what srun says, and its end.

        Raises KeyboardInterrupt where ranks that were asked to end take too long, or can't save anything: they were not ready yet, or wait
        for one whose host is gone.
        """
        assert self._srun is not None
        heard = self._heard(timeout)
        if self._asked and (srun.gone(self.said) or any(process.status in UNPREPARED for process in self._processes)):
            raise KeyboardInterrupt
        if heard or self._srun.poll() is None:
            if self.deadline is not None and time.monotonic() > self.deadline:
                self._give_up()
            return
        status = self._srun.returncode
        for process in self._processes:  # those that srun said nothing of
            if process.status is None:
                process.status, process.ended = status, time.time()
                process.error = (srun.failure(self.said) or f"srun ended with exit status {status}") if status else None

    def _give_up(self) -> None:
        """Raises KeyboardInterrupt, unless Slurm still lets the job run: a preempted one has a time of grace."""
        assert self.job is not None
        now = standing(self.job)
        if now is None or now.state != "RUNNING":
            raise KeyboardInterrupt
        self.deadline = time.monotonic() + LAST

    def _heard(self, timeout: float) -> bool:
        """Read what srun writes for so many seconds; whether it wrote something."""
        assert self._srun is not None
        assert self._srun.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._srun.stderr, selectors.EVENT_READ)
            if not selector.select(timeout):
                return False
        text = os.read(self._srun.stderr.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in (line.decode(errors="replace") for line in lines):
            print(line, file=sys.stderr, flush=True)
            self.said.append(line)
            srun.take_in(line, self._processes)
        if not text:
            with suppress(subprocess.TimeoutExpired):
                self._srun.wait(timeout)
        return bool(text)

    def unheard(self) -> list[str]:
        """The hosts of ranks whose end srun has not told: it does not reach them."""
        return list(dict.fromkeys(one.host for one in self._processes if one.status is None or one.error is not None))

    def stacks(self, processes: list[Process]) -> None:
        """By faulthandler, on SIGUSR2, which srun passes on."""
        if self._srun is not None and self._srun.poll() is None:
            self._srun.send_signal(signal.SIGUSR2)
            self._heard(STACK)

    def end(self, processes: list[Process], grace: float = 1.0) -> None:
        """End the step: srun, asked to end, has Slurm end all of it."""
        if self._srun is None:
            return
        late = self.deadline is not None and time.monotonic() > self.deadline
        deadline = time.monotonic() + (HURRY if late else grace + LAST)
        if self._srun.poll() is None:
            self._srun.terminate()
        while self._srun.poll() is None and time.monotonic() < deadline:
            self._heard(0.05)
        if self._srun.poll() is None:
            self._srun.kill()  # the step's processes end with the job's script at the latest
        self._srun.wait()

    def pulse(self, processes: list[Process]) -> Pulse:
        """By the samples that the ranks leave in the run's folder."""
        return Samples(self._seen.parent).beat

    def close(self) -> None:
        """End all that was started."""
        self.end([])
        if self._pool is not None:
            self._pool.close()


def free_port(job: int, wanted: int | None) -> int:
    """A port of this host on which nothing listens: ``wanted``, or one that follows from the job's id, so that two jobs don't meet.

    Raises ScalelabError where ``wanted`` is in use.
    """
    if wanted is not None:
        if not _free(wanted):
            raise ScalelabError(f"--master-port {wanted}: in use on {socket.gethostname()}; leave it out for a free one")
        return wanted
    first = PORTS.start + job * TRIES % len(PORTS)
    return next(
        port for port in (PORTS.start + (first + more - PORTS.start) % len(PORTS) for more in range(len(PORTS))) if _free(port)
    )


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
