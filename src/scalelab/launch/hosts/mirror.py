"""What ranks write on one host, sent to another one as it comes: the source's end. ``copying`` is the other one.

Files that grow (logs, steps, events, samples) are sent by what was appended, at once. All others are sent whole, one after the other,
when they have stopped changing, and take their place there in one piece. Hidden files (a half-written ``.name.tmp``, a lock) stay here.
A pointer to a checkpoint is read before the checkpoints are listed and sent after them, so that it never names one that is not there;
and after the steps and the record, so that who goes on from it misses none of the steps and epochs before it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scalelab.launch.hosts.channel import CHUNK, Message

Part = tuple[Message, bytes]
GROWING = re.compile(r"\.(txt|jsonl)$|^events\.out\.tfevents")
OF_A_RANK = re.compile(r"^rank-(\d+)\b")
POINTER, CHECKPOINT = re.compile(r"^checkpoints/[^/]+\.json$"), re.compile(r"^checkpoints/[^/]+\.safetensors$")
LEFT = ("profile/",)
"""folders of what is put together here and then removed"""
FIRST, RECORD = "failures/", "record.json"


@dataclass(frozen=True)
class State:
    """Of a file: which one it is, how long, and when it was last written."""

    inode: int
    size: int
    written: int

    @classmethod
    def of(cls, status: os.stat_result) -> State:
        """Of a file whose status the system gave."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass
class Mirror:
    """Follows a run's folder. ``grown`` and ``whole`` give the messages that bring a copy of it up to date.

    ``ranks``: those of this host; files of other ranks are theirs to send.
    """

    folder: Path
    ranks: frozenset[int]
    sent: dict[str, State] = field(default_factory=dict)
    """of each file, as the copy has it"""
    seen: dict[str, State] = field(default_factory=dict)
    """as the last look found them"""
    held: Iterator[Part] = field(default_factory=lambda: iter(()))
    """what is left of the round that has begun"""

    def has(self, name: str) -> None:
        """The copy has this file as it is now: it came from there."""
        self.sent[name] = State.of((self.folder / name).stat())

    def grown(self) -> Iterator[Part]:
        """What was appended to files that grow since they were last sent."""
        for name in self._names():
            if GROWING.search(Path(name).name):
                yield from self._appended(name)

    def whole(self, room: int) -> Iterator[Part]:
        """The next parts of files that are sent whole, of about ``room`` bytes; of the round that has begun, and then of one more."""
        begun = False
        while room > 0:
            part = next(self.held, None)
            if part is None and begun:
                return
            if part is None:
                self.held, begun = self._round(final=False), True
                continue
            room -= len(part[1])
            yield part

    def rest(self) -> Iterator[Part]:
        """All that is left: nobody writes any more."""
        yield from self.grown()
        yield from self.held
        self.held = iter(())
        yield from self._round(final=True)

    def failures(self) -> Iterator[Part]:
        """What ranks that failed have said, whatever else waits."""
        names = [name for name in self._names() if name.startswith(FIRST)]
        yield from self._files(names, final=True)

    def _appended(self, name: str) -> Iterator[Part]:
        try:
            with (self.folder / name).open("rb") as file:
                now, before = State.of(os.fstat(file.fileno())), self.sent.get(name)
                fresh = before is not None and (before.inode != now.inode or now.size < before.size)
                at = 0 if before is None or fresh else before.size
                if at == now.size and not fresh and before is not None:
                    return
                file.seek(at)
                while True:
                    body = file.read(CHUNK)
                    yield {"do": "grown", "path": name, "at": at, "fresh": fresh}, body
                    at, fresh = at + len(body), False
                    if len(body) < CHUNK:
                        break
                self.sent[name] = State(now.inode, at, now.written)
        except FileNotFoundError:
            return

    def _round(self, final: bool) -> Iterator[Part]:
        """All files that are sent whole and have changed. ``final``: also those that were still changing at the last look."""
        pointers = [(name, *read) for name in self._names() if POINTER.match(name) and (read := self._read(name)) is not None]
        names = [name for name in self._names() if not GROWING.search(Path(name).name) and not POINTER.match(name)]
        yield from self._files(sorted(names, key=lambda name: (not name.startswith(FIRST), bool(CHECKPOINT.match(name)))), final)
        if any(self.sent.get(name) != state for name, state, _ in pointers):
            yield from self.grown()
            yield from self._files([RECORD], final=True)  # which is only ever replaced, so it is whole though it may change
        for name, state, body in pointers:
            if self.sent.get(name) != state and f"checkpoints/{_named(body)}" in self.sent:
                yield {"do": "whole", "path": name, "at": 0, "last": True}, body
                self.sent[name] = state
        there = set(names)
        wanted = {f"checkpoints/{_named(body)}" for _, _, body in pointers}
        for name in [name for name in self.sent if CHECKPOINT.match(name) and name not in there | wanted]:
            del self.sent[name]
            yield {"do": "gone", "path": name}, b""

    def _files(self, names: list[str], final: bool) -> Iterator[Part]:
        for name in names:
            state = self._state(name)
            steady = final or self.seen.get(name) == state
            if state is None or self.sent.get(name) == state:
                continue
            self.seen[name] = state
            if steady:
                yield from self._file(name)

    def _file(self, name: str) -> Iterator[Part]:
        """A file whole; where it changes meanwhile, the copy is told to forget it, and it comes again."""
        try:
            with (self.folder / name).open("rb") as file:
                state = State.of(os.fstat(file.fileno()))
                at = 0
                while True:
                    body = file.read(CHUNK)
                    last = at + len(body) >= state.size or not body
                    if last and State.of(os.fstat(file.fileno())) != state:
                        yield {"do": "forget", "path": name}, b""
                        return
                    yield {"do": "whole", "path": name, "at": at, "last": last}, body
                    at += len(body)
                    if last:
                        break
                self.sent[name] = state
        except FileNotFoundError:  # it is gone or was replaced meanwhile
            return

    def _read(self, name: str) -> tuple[State, bytes] | None:
        try:
            with (self.folder / name).open("rb") as file:
                return State.of(os.fstat(file.fileno())), file.read()
        except FileNotFoundError:
            return None

    def _state(self, name: str) -> State | None:
        try:
            return State.of((self.folder / name).stat())
        except FileNotFoundError:
            return None

    def _names(self) -> list[str]:
        """Of the files that are sent, relative to the folder."""
        found = []
        for place, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [Path(place, name).relative_to(self.folder).as_posix() for name in sorted(files)]
        return [name for name in found if self._sends(name)]

    def _sends(self, name: str) -> bool:
        last = name.rpartition("/")[2]
        rank = OF_A_RANK.match(last)
        return not last.startswith(".") and not name.startswith(LEFT) and (rank is None or int(rank[1]) in self.ranks)


def _named(pointer: bytes) -> str:
    """The checkpoint that a pointer names; an empty string where it is none."""
    try:
        return str(json.loads(pointer)["file"])
    except (ValueError, KeyError, TypeError):
        return ""
