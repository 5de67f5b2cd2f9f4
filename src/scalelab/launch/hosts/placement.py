"""Where the ranks of a training over hosts run."""

from __future__ import annotations

import shlex
import sys
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
    """of the batch, where all its slots are taken, beside those of the other hosts; None: as much as it has workers"""
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


def shares(places: Sequence[Place], counts: Sequence[int], stages: int) -> str | None:
    """``--shares`` for so many workers on each place, in ``stages`` of a pipeline; None where no place has a share, or all are alike.

    A host's share is divided among its slots. A replica is as fast as the slowest of its stages' workers.
    """
    if all(place.share is None for place in places):
        return None
    each = [1.0 if place.share is None else place.share / place.slots for place in places]
    weights = [weight for weight, count in zip(each, counts, strict=False) for _ in range(count)]
    replicas = [min(weights[at : at + stages]) for at in range(0, len(weights), stages)]
    return None if len(set(replicas)) == 1 else ":".join(f"{weight:.6g}" for weight in replicas)


def over_ssh(place: Place, module: Sequence[str], ssh_args: Sequence[str] = (), options: Sequence[str] = ()) -> list[str]:
    """What runs the host's interpreter with the words ``module`` there: no terminal, no question, nothing unquoted in the remote line.

    ``ssh_args`` are the user's, and win over ``options``, which are ours.
    """
    port = ["-p", str(place.port)] if place.port is not None else []
    remote = shlex.join([place.python or sys.executable, *module])
    return [
        "ssh",
        *ssh_args,
        "-T",
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=10",
        *options,
        *port,
        "--",
        place.host,
        f"exec {remote}",
    ]
