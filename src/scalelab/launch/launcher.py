"""What a launcher is: where the ranks of a training run, and how they are reached. ``training`` does the rest, the same for all."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from scalelab.batch import Derived
from scalelab.errors import ScalelabError
from scalelab.record.schema import Ceiling, DataFacts, Host, ModelFacts
from scalelab.spec import Spec

if TYPE_CHECKING:
    from scalelab.launch.ceiling import Occupied
    from scalelab.launch.pool import Pool


@dataclass
class Process:
    """A process of a launcher, here or on another host. ``status`` is None while it runs, then its exit status, or minus the
    signal that ended it.
    """

    id: int
    pid: int | None = None
    status: int | None = None
    ended: float | None = field(default=None)
    """seconds since the epoch when its end was heard of, on the clock of the failures that ranks write down"""
    host: str = field(default_factory=socket.gethostname)
    error: str | None = None
    """why it ended, where its launcher knows better than its status tells: its host was lost"""


@dataclass(frozen=True)
class Prepared:
    """A spec that was found to work where it will run."""

    spec: Spec
    derived: Derived
    model: ModelFacts
    data: DataFacts
    plan: dict[str, int]
    devices: int
    """GPUs of the first host"""
    cores: int = 0
    """of the first host; 0: not kept by an earlier version"""
    local: int = 0
    """workers on the first host; 0: all"""
    hosts: tuple[str, ...] = ()
    """of its launcher's places those that it was prepared for; none: whichever its workers fill"""


@dataclass(frozen=True)
class Meeting:
    """Where the ranks of a training meet: rank 0 listens there."""

    address: str
    port: int
    listener: int | None = None
    """descriptor of the socket that was bound, handed to rank 0, so that nobody else can take the port meanwhile"""


Pulse = Callable[[], bool]


@dataclass(frozen=True)
class Command:
    """What runs on a host, as ``--dry-run`` prints it and a test checks it."""

    host: str
    argv: tuple[str, ...]
    env: dict[str, str]
    """what is set besides the environment that the process has anyway"""


class Launcher(ABC):
    """Where the ranks of a training run, and how they are reached. Use as a context manager."""

    here: Pool | None = None
    """the processes of this machine, where all ranks run on it"""
    job: str | None = None
    """the cluster's job that the ranks run in, if they do"""
    answers_there: bool = True
    """whether ``ask`` is answered on a host that ranks run on; else what is measured by it says nothing of them"""
    slots: int | None = None
    """workers that it has places for, which is how many there are where the user does not say; None: as many as are wanted"""

    @property
    @abstractmethod
    def cores(self) -> int:
        """Cores of the first host that its ranks may use together."""

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Its hosts by name, the first host first, each with the workers that it takes; none: all run on this machine."""
        return ()

    def part(self, hosts: Sequence[str]) -> Launcher:
        """This launcher on some of its places only, by their names; itself for none. What it gives is closed with itself.

        Raises ScalelabError for a name that is none of them.
        """
        if not hosts:
            return self
        raise ScalelabError(f"{', '.join(hosts)}: all workers run on this machine; name the hosts with --hosts")

    @abstractmethod
    def workers_of(self, spec: Spec) -> list[int]:
        """How many of the spec's workers run on each host, the first host first. Raises ScalelabError where they don't fit."""

    @abstractmethod
    def hosts(self, spec: Spec) -> list[Host]:
        """The hosts that the spec's workers run on, for the record."""

    @abstractmethod
    def warm(self) -> None:
        """Begin now what takes long before the first process runs."""

    def check(self, spec: Spec, model: ModelFacts | None = None) -> None:  # noqa: B027  # most have nothing to check
        """Raises ScalelabError where a host is not fit for the spec; ``model``: for its memory too, once that is known."""

    def crowded(self, spec: Spec) -> bool:
        """Whether some other host than the first has fewer cores than threads that compute."""
        return False

    def shares(self, spec: Spec) -> str | None:
        """What ``--shares`` its hosts ask for; None: nothing."""
        return None

    @abstractmethod
    def ask(self, target: str, spec: Spec, doing: str = "checking the spec") -> Any:
        """What ``target`` ("module:function", called with a spec's file and an answer's) answers on the first host, as JSON.

        Raises ScalelabError, Silent after ``--timeout`` seconds in which the process computed nothing; nothing is left behind.
        """

    def occupied(self, spec: Spec, derived: Derived) -> list[Occupied]:
        """How the spec's workers occupy each host; none: what hosts can do at most is not measured here."""
        return []

    def ceilings(self, wanted: Sequence[Occupied]) -> Mapping[Occupied, Ceiling]:
        """What hosts can do at most, measured on each; those that could not be measured are left out."""
        return {}

    @abstractmethod
    def reserve(self, spec: Spec) -> AbstractContextManager[Meeting]:
        """Hold the place where the ranks will meet. Raises ScalelabError where ``--master-port`` is in use."""

    @abstractmethod
    def commands(self, spec: Spec, derived: Derived) -> list[Command]:
        """What starts the ranks, with ``RUN`` for the folder that a run will have: a command for each rank, or each host."""

    @abstractmethod
    def start_ranks(self, folder: Path, spec: Spec, derived: Derived, meeting: Meeting, processes: list[Process]) -> None:
        """Start one process a rank, with torchrun's variables; each is appended to ``processes``, in the order of their ranks.

        ``folder`` is the run's, here. What ranks leave in theirs comes to be there, on whatever host they run.
        """

    @abstractmethod
    def poll(self, timeout: float) -> None:
        """Take in what is told of processes, for at most ``timeout`` seconds. Raises RunError when they can't be heard any more."""

    @abstractmethod
    def end(self, processes: list[Process], grace: float = 1.0) -> None:
        """End these processes, and what they started: SIGTERM, and SIGKILL after ``grace`` seconds."""

    def stacks(self, processes: list[Process]) -> None:
        """Have those of these processes that still run write into their logs where they stand: they will be ended."""
        return

    def failed_first(self, processes: list[Process]) -> bool:
        """Whether one of these processes had failed before this one was told to end, and that is why it was: mpiexec and srun do so."""
        return False

    @abstractmethod
    def pulse(self, processes: list[Process]) -> Pulse:
        """Tells, asked about once a second, whether any of these processes has computed since it was last asked."""

    @abstractmethod
    def close(self) -> None:
        """End all that was started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
