"""What the runs say: rates, ratios paired by round, and whether the goals are reached."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import msgspec

from contenders import Contest
from scalelab.measure.environment import environment
from scalelab.measure.statistics import figure
from scalelab.record.schema import Environment, Figure

SUBJECT = "scalelab"
BOUND = "bare"
FRAMEWORKS = ("accelerate", "fabric")
GOAL_TUNED, GOAL_FRAMEWORK, GOAL_OVERHEAD = 1.0, 1.25, 0.02


@dataclass(frozen=True)
class Results:
    """``ratios[peer]`` is scalelab's images/s over the peer's; ``overhead`` the share of a step that is not the bound's."""

    rates: dict[str, list[float]]
    about: dict[str, str]
    figures: dict[str, Figure]
    ratios: dict[str, Figure]
    overhead: Figure
    contest: Contest
    command: str
    date: str
    where: Environment

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Contender, images/s, spread, and scalelab's ratio with its interval; the fastest first."""
        order = sorted(self.figures, key=lambda name: -(self.figures[name].median or 0))
        return [
            (
                name,
                f"{self.figures[name].median:.0f}",
                f"± {self.figures[name].mad:.0f}" if self.figures[name].mad is not None else "",
                interval(self.ratios[name], " ×") if name in self.ratios else "",
            )
            for name in order
        ]

    def sentences(self) -> list[str]:
        """Each goal, with what was measured and whether that reaches it."""
        found = []
        if "tuned" in self.ratios:
            found.append(f"Against the hand-tuned loop: {verdict(self.ratios['tuned'], GOAL_TUNED)}")
        frameworks = [name for name in FRAMEWORKS if name in self.figures]
        if frameworks:
            fastest = max(frameworks, key=lambda name: self.figures[name].median or 0)
            found.append(f"Against the fastest framework ({fastest}): {verdict(self.ratios[fastest], GOAL_FRAMEWORK)}")
        found.append(f"The trainer's own share of a step (1 − its images/s over the bound's): {own_share(self.overhead)}")
        return found

    def as_json(self) -> dict[str, Any]:
        built: dict[str, Any] = msgspec.to_builtins(
            {
                "command": self.command,
                "date": self.date,
                "images_per_second": self.figures,
                "ratios": self.ratios,
                "overhead": self.overhead,
                "rounds": self.rates,
                "sentences": self.sentences(),
                "environment": self.where,
            }
        )
        return built


def summary(rates: dict[str, list[float]], about: dict[str, str], contest: Contest, command: str) -> Results:
    """Results of ``rates``, a list over the rounds for each contender."""
    mine = rates[SUBJECT]
    return Results(
        rates,
        about,
        {name: figure(values, "images/s") for name, values in rates.items()},
        {name: figure(paired(mine, values), "ratio") for name, values in rates.items() if name != SUBJECT},
        figure([1 - ratio for ratio in paired(mine, rates[BOUND])], "share of a step"),
        contest,
        command,
        datetime.now(UTC).strftime("%Y-%m-%d"),
        surroundings(command),
    )


def paired(mine: list[float], other: list[float]) -> list[float]:
    """Ratios round by round: what slows the machine in a round slows both."""
    return [a / b for a, b in zip(mine, other, strict=True)]


def surroundings(command: str) -> Environment:
    """scalelab's own description of the machine, with the peers' versions and without the host's name."""
    base = environment([command], threads=1)
    peers = {}
    for package in FRAMEWORKS_PACKAGES:
        try:
            peers[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    hosts = [msgspec.structs.replace(host, name="") for host in base.hosts]
    return msgspec.structs.replace(base, versions={**base.versions, **peers}, hosts=hosts)


FRAMEWORKS_PACKAGES = ("accelerate", "lightning")


def interval(ratio: Figure, unit: str = "") -> str:
    """``1.03 × [1.01, 1.05]``."""
    spread = f" [{ratio.ci95[0]:.3f}, {ratio.ci95[1]:.3f}]" if ratio.ci95 else ""
    return f"{ratio.median:.3f}{unit}{spread}"


def verdict(ratio: Figure, goal: float) -> str:
    """Whether ``ratio`` reaches ``goal``, by how much not, and whether its interval leaves doubt."""
    value = ratio.median or 0.0
    outcome = "reached" if value >= goal else f"not reached by {100 * (1 - value / goal):.1f} %"
    return f"{interval(ratio, ' ×')}; the goal, {goal:.2f} ×, is {outcome}{doubt(ratio, goal)}"


def own_share(share: Figure) -> str:
    """The same for the overhead, which has to stay below its goal."""
    value = share.median or 0.0
    spread = f" [{100 * share.ci95[0]:.1f}, {100 * share.ci95[1]:.1f}]" if share.ci95 else ""
    outcome = "reached" if value <= GOAL_OVERHEAD else f"not reached by {100 * (value - GOAL_OVERHEAD):.1f} points"
    return (
        f"{100 * value:.1f} %{spread}; the goal, at most {100 * GOAL_OVERHEAD:.0f} %, is {outcome}{doubt(share, GOAL_OVERHEAD)}"
    )


def doubt(measured: Figure, goal: float) -> str:
    """The end of a sentence: what the interval says about it."""
    if measured.ci95 is None:
        return ", in too few rounds to say how certainly."
    low, high = measured.ci95
    return ", though the interval holds the goal: the difference is within the noise." if low < goal < high else "."
