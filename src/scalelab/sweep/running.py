"""Tasks handed to crews, one after the other, until all have ended: here, or over hosts."""

from __future__ import annotations

import selectors
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Protocol

from scalelab import __version__
from scalelab.errors import RunError, ScalelabError
from scalelab.launch.signals import uninterrupted
from scalelab.sweep.crew import Crew
from scalelab.sweep.job import Job

TICK = 0.25
GREETING = 40.0
"""seconds until a crew has said its first word: connecting may take ten, a cold interpreter on a network disk longer"""
CLEARING = 10.0
"""seconds for tasks to end at Ctrl-C: they get SIGTERM, and SIGKILL after three"""
TIMES_LOST = 2
"""hosts that a task may be lost with; then it is taken for what makes them fall"""


class Watching(Protocol):
    """Gets word of a sweep's events as they happen."""

    def ready(self) -> None:
        """All that was to be checked is well; tasks begin."""

    def began(self, record: dict[str, Any]) -> None:
        """A task has begun."""

    def ended(self, record: dict[str, Any]) -> None:
        """A task has ended."""

    def lost(self, crew: Crew) -> None:
        """A host was lost; its tasks go to others."""

    def tick(self) -> None:
        """Called several times a second."""


def greet(crews: Sequence[Crew]) -> None:
    """Wait until every crew is ready. Raises ScalelabError that names each one that is not."""
    end = time.monotonic() + GREETING
    with selectors.DefaultSelector() as selector:
        for crew in crews:
            selector.register(crew.descriptor, selectors.EVENT_READ, crew)
        while any(crew.hello is None and crew.gone is None for crew in crews) and time.monotonic() < end:
            for key, _ in selector.select(TICK):
                key.data.hear()
                if key.data.hello is not None or key.data.gone is not None:
                    selector.unregister(key.fd)
    faults = [f"{crew.name}: {crew.gone or f'no answer in {GREETING:g} s'}" for crew in crews if crew.hello is None]
    faults += [
        f"{crew.name}: scalelab {crew.hello['version']} there, {__version__} here"
        for crew in crews
        if crew.hello is not None and crew.hello["version"] != __version__
    ]
    faults += [
        f"{crew.name}: its GPUs are fewer than --gpus-per-task" for crew in crews if crew.hello is not None and not crew.slots
    ]
    if faults:
        raise ScalelabError("; ".join(faults))


def carry_out(crews: Sequence[Crew], jobs: Sequence[Job], watch: Watching) -> None:
    """Run all jobs, each on the first crew that has room. Ctrl-C ends those that run, and goes on as KeyboardInterrupt.

    Raises RunError when there is no crew any more.
    """
    waiting, lost = deque(jobs), Counter[int]()
    with selectors.DefaultSelector() as selector:
        for crew in crews:
            selector.register(crew.descriptor, selectors.EVENT_READ, crew)
        try:
            while waiting or any(crew.running for crew in crews):
                with uninterrupted():  # half a message taken in would make nonsense of the next
                    _hand_out(crews, waiting)
                readable = [key for key, _ in selector.select(TICK)]
                with uninterrupted():
                    _turn(readable, selector, watch, waiting, lost)
                if all(crew.gone for crew in crews):
                    raise RunError("; ".join(f"{crew.name}: {crew.gone}" for crew in crews))
        except KeyboardInterrupt:
            with uninterrupted():
                _clear(selector, crews, watch, "interrupted")
            raise


def _hand_out(crews: Sequence[Crew], waiting: deque[Job]) -> None:
    while waiting:
        crew = max(crews, key=lambda one: one.free)
        if crew.free <= 0:
            return
        crew.run(waiting.popleft())


def _turn(
    readable: Sequence[selectors.SelectorKey],
    selector: selectors.BaseSelector,
    watch: Watching,
    waiting: deque[Job],
    lost: Counter[int],
) -> None:
    for key in readable:
        crew: Crew = key.data
        _tell(crew, watch)
        if crew.gone is not None:
            selector.unregister(key.fd)
            watch.lost(crew)
            for job in crew.running.values():
                lost[job.task] += 1
                if lost[job.task] <= TIMES_LOST:
                    waiting.appendleft(job)
                else:
                    reason = f"its host was lost {lost[job.task]} times"
                    watch.ended({"task": job.task, "values": job.values, "status": "failed", "reason": reason})
            crew.running.clear()
    watch.tick()


def _tell(crew: Crew, watch: Watching) -> None:
    for record in crew.hear():
        (watch.began if record["status"] == "running" else watch.ended)(record)


def _clear(selector: selectors.BaseSelector, crews: Sequence[Crew], watch: Watching, why: str) -> None:
    """End what runs, and hear of it."""
    for crew in crews:
        crew.say({"end": why})
    end = time.monotonic() + CLEARING
    while any(crew.running and not crew.gone for crew in crews) and time.monotonic() < end:
        for key, _ in selector.select(TICK):
            _tell(key.data, watch)
            if key.data.gone is not None:
                selector.unregister(key.fd)
