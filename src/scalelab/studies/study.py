"""What a study is: a question, the points that answer it, and the analysis of their trainings. One file a study.

A study varies fields of the spec (``varies``) over a common base. ``points`` turns what was asked into the trainings, without
starting anything; ``analyse`` turns their records into findings, without knowing how they came about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalelab.launch.launcher import Launcher, Prepared
from scalelab.record.schema import Ceiling, TrainRecord
from scalelab.record.study import Factor, Findings
from scalelab.spec import Spec

SILENCE = 300.0
"""seconds after which a silent worker ends its training, in a study that has others to go on with (--timeout)"""


@dataclass(frozen=True)
class Option:
    """A flag that only this study has: ``--remedies none lars``. ``default`` decides its type; a list takes several values."""

    name: str
    default: Any
    text: str
    metavar: str = "NAME"


@dataclass(frozen=True)
class Asked:
    """What the user wants to know, wholly: equal ``Asked`` are the same study."""

    base: Spec
    varied: dict[str, list[Any]]
    """each field of ``Study.varies``, with the values to try"""
    options: dict[str, Any]
    """each of ``Study.options``, with its value"""
    quick: bool
    cores: int
    """of this host, or the first one, that a training may use"""
    places: tuple[tuple[str, int], ...] = ()
    """the hosts by name, each with the workers that it takes, in the order in which they are filled; none: this machine"""
    where: str = ""
    """the same in words, as it is kept; empty: this machine"""

    def busiest(self, workers: int) -> int:
        """How many of so many workers share a host, at most."""
        filled, left = [], workers
        for _, slots in self.places or (("", workers),):
            filled.append(min(slots, left))
            left -= filled[-1]
        return max(filled)


@dataclass(frozen=True)
class Point:
    """One thing to be tried: all its repeats (or seeds) train ``spec``. ``factors`` is where it stands among the others."""

    label: str
    factors: dict[str, Factor]
    spec: Spec
    hosts: tuple[str, ...] = ()
    """those of ``Asked.places`` that it runs on; none: whichever its workers fill"""


@dataclass(frozen=True)
class Run:
    """One training of a point: which repeat it is, its folder, its record."""

    repeat: int
    folder: Path
    record: TrainRecord
    ceilings: Sequence[Ceiling] = ()
    """the most that each host can compute with so many workers of so many threads; those that could not be measured are not there"""


@dataclass(frozen=True)
class Result:
    """A point and its trainings in the order of the repeats; ``refused`` says why it could not run here at all."""

    point: Point
    runs: Sequence[Run] = ()
    refused: str | None = None

    @property
    def completed(self) -> list[Run]:
        """The trainings that came to their end."""
        return [run for run in self.runs if run.record.status == "completed"]


@dataclass(frozen=True)
class Study:
    """One question and how it is answered."""

    name: str
    question: str
    points: Callable[[Asked], list[Point]]
    """raises ScalelabError in one line for what can't be asked"""
    analyse: Callable[[Asked, Sequence[Result]], Findings]
    """of all results, those that failed or were refused too; at least one training was completed"""
    example: str
    """one or two command lines for --help"""
    base: dict[str, Any] = field(default_factory=dict)
    """defaults of the spec's fields in this study"""
    varies: dict[str, list[Any]] = field(default_factory=dict)
    """fields of the spec that take several values here, with their defaults"""
    quick: dict[str, Any] = field(default_factory=dict)
    """what --quick changes of ``base``, ``varies`` and ``options``, where the user does not say otherwise"""
    options: tuple[Option, ...] = ()
    repeats: int = 3
    """default of --repeats (of --seeds where ``seeded``); --quick makes it 1"""
    seeded: bool = False
    """each repeat has a seed of its own: what is compared is what is learnt, not how fast"""
    foresee: Callable[[Launcher, Sequence[Prepared]], list[str | None]] | None = None
    """of what was found to work: why some of it must not be started here, such as for want of memory"""
    subject: Callable[[Point], bool] = lambda point: True
    """whether a point is one that the question is about; where none of those can run, nothing is trained for the others"""
    give_up: Callable[[Point, Sequence[Result]], str | None] | None = None
    """why a point is not tried any more, by what became of others so far"""
    hosts: bool = False
    """it asks about hosts, and so can't be asked without --hosts"""
