"""What a rank does in a step of a pipeline, and when: noted around the calls of its chunks, in steps that are recorded.

Outside of ``recording`` nothing is wrapped: a training step pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from scalelab.record.timeline import CHUNKS, Kind


@dataclass(frozen=True)
class Noted:
    """One thing that this rank did, in nanoseconds of its own clock."""

    kind: Kind
    start: int
    end: int
    stage: int | None = None
    micro_batch: int | None = None


@dataclass(frozen=True)
class Watched:
    """A method that is noted: ``says`` what a call of it is, (kind, stage, micro-batch), from its arguments.

    None: it belongs to the chunk before, as the loss does to a forward pass.
    """

    owner: object
    method: str
    says: Callable[..., tuple[Kind, int | None, int | None] | None]


class Recorder:
    """Collects ``noted``. What happens inside of something that is noted is part of it: batch norm's waiting is a forward pass's."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.now, self.noted, self.inside = now, list[Noted](), False

    def around(self, call: Callable[..., Any], watched: Watched) -> Callable[..., Any]:
        """``call``, noted."""

        def noting(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return call(*args, **kwargs)
            self.inside, start = True, self.now()
            try:
                return call(*args, **kwargs)
            finally:
                self._note(watched.says(*args, **kwargs), start)
                self.inside = False

        return noting

    def _note(self, what: tuple[Kind, int | None, int | None] | None, start: int) -> None:
        end = self.now()
        if what is not None:
            self.noted.append(Noted(what[0], start, end, what[1], what[2]))
        elif self.noted and self.noted[-1].kind in CHUNKS:
            before = self.noted[-1]
            self.noted[-1] = Noted(before.kind, before.start, end, before.stage, before.micro_batch)

    def take(self) -> list[Noted]:
        """What was noted since the last time."""
        noted, self.noted = self.noted, []
        return noted


@contextmanager
def recording(watched: Sequence[Watched], now: Callable[[], int]) -> Iterator[Recorder]:
    """Inside of it the calls of ``watched`` are noted, and every wait for a message."""
    recorder = Recorder(now)
    waiting = Watched(dist.Work, "wait", lambda *args, **kwargs: ("wait", None, None))
    with ExitStack() as stack:
        for one in (*watched, waiting):
            stack.enter_context(_replaced(one, recorder))
        yield recorder


@contextmanager
def _replaced(watched: Watched, recorder: Recorder) -> Iterator[None]:
    """The method of this one object (or class), wrapped until the end."""
    owner, name = watched.owner, watched.method
    own = name in vars(owner)
    before = vars(owner)[name] if own else getattr(owner, name)
    setattr(owner, name, recorder.around(getattr(owner, name), watched))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
