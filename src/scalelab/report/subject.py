"""What a report is about: the one value that every format is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scalelab.errors import ScalelabError
from scalelab.record.schema import Sample, Step, TrainRecord, VerifyRecord

Samples = Mapping[str, Sequence[Sample]]
"""what the workers of runs used over time, by ``record.run``"""


@dataclass(frozen=True)
class Subject:
    """Some runs, and what is asked about them. Raises ScalelabError for no run."""

    records: Sequence[TrainRecord]
    title: str
    question: str
    answer: str | None = None
    """None: the one that follows from the records"""
    verify: VerifyRecord | None = None
    steps: Mapping[str, Sequence[Step]] = field(default_factory=dict)
    """for figures, by ``record.run``"""
    samples: Samples = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.records:
            raise ScalelabError("there is no run to report on; `scalelab runs list` shows them")
