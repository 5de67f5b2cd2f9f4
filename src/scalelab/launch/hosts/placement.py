"""Where the ranks of a training over hosts run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scalelab.errors import ScalelabError


@dataclass(frozen=True)
class Place:
    """A host, and what is particular to it. ``host`` is what ssh takes: a name, an alias of ~/.ssh/config, an address."""

    host: str
    slots: int = 1
    """workers that it may run"""
    share: float | None = None
    """of the batch, in proportion to those of the other hosts"""
    interface: str | None = None
    """network interface over which its ranks speak to the others"""
    python: str | None = None
    """the interpreter there; the launching host's own path where None"""
    port: int | None = None
    """of its sshd"""
    data_dir: str | None = None
    """its own --data-dir"""
    env: Mapping[str, str] = field(default_factory=dict)
    """environment variables of its agent and ranks"""


def spread(places: Sequence[Place], workers: int) -> list[int]:
    """How many of ``workers`` run on each place: the places are filled in their order. Raises ScalelabError where they don't fit."""
    slots = sum(place.slots for place in places)
    if workers > slots:
        raise ScalelabError(f"--workers {workers}: the hosts have {slots} slots; lower it, or give them more (slots=)")
    left, counts = workers, []
    for place in places:
        counts.append(min(place.slots, left))
        left -= counts[-1]
    return counts
