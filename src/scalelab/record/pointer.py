"""Which file is a run's newest checkpoint, its best, and the one before: small files beside them, so that a whole one is always known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

CHECKPOINTS = "checkpoints"
NEWEST = ("last", "previous")
"""pointers to what a run goes on from, in the order in which they are tried"""


@dataclass(frozen=True)
class Pointer:
    """What a pointer says: the checkpoint's file, by name, what it must hash to, and the step after which it was saved."""

    file: str
    sha256: str
    step: int


def pointer(path: Path) -> Pointer | None:
    """What the file says; None where there is none, or it is damaged."""
    try:
        held = json.loads(path.read_text())
        return Pointer(Path(str(held["file"])).name, str(held["sha256"]), int(held["step"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def any_saved(folder: Path) -> bool:
    """Whether a run has a checkpoint to go on from: while a new one is being saved, the one before it may be the only one that is named."""
    return any((folder / CHECKPOINTS / f"{name}.json").exists() for name in NEWEST)


def newest_step(folder: Path) -> int | None:
    """The step of a run's newest checkpoint; None where no pointer tells."""
    held = (pointer(folder / CHECKPOINTS / f"{name}.json") for name in NEWEST)
    return next((one.step for one in held if one is not None), None)
