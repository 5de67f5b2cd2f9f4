"""``resources/rank-N.jsonl`` of a run's folder: what each worker used, a line a sample."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from scalelab.record.document import DAMAGED
from scalelab.record.schema import Sample

FOLDER = "resources"


def path(folder: Path, rank: int) -> Path:
    """The file of one worker."""
    return folder / FOLDER / f"rank-{rank}.jsonl"


def read(folder: Path, since: float = 0.0) -> list[Sample]:
    """The samples of all workers taken after ``since`` (seconds since 1970), by time; without lines that are not whole."""
    found, decoder = [], msgspec.json.Decoder(Sample)
    for file in sorted((folder / FOLDER).glob("rank-*.jsonl")):
        for line in file.read_bytes().splitlines():
            with contextlib.suppress(*DAMAGED):  # still being written, or cut off when its host went down
                found.append(decoder.decode(line))
    return sorted((sample for sample in found if sample.at > since), key=lambda sample: sample.at)
