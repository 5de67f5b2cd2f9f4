"""What is known of the hosts when the checks look at it: plain values, gathered before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Told:
    """What one host has told."""

    name: str
    unreachable: str | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
    """of ``there.machine.tell``; empty where it can't be reached"""
    programs: Mapping[str, Any] = field(default_factory=dict)
    clock: tuple[float, float] | None = None
    """(seconds by which its clock is ahead of this one, how far off that may be); None: it is this one"""
    sees: Mapping[str, Any] | None = None
    """of a file that was just written into ``--out``; None: it was not asked"""
    master: Mapping[str, Any] | None = None
    """what MASTER_ADDR means there"""
    logins: Mapping[str, str | None] = field(default_factory=dict)
    """by host: None where ssh from here to there works, else its words"""
    closed: Mapping[str, str] = field(default_factory=dict)
    """by host: why it can't be reached from here at the ports that ranks use, where that is so"""
    workers: int = 1
    """that it is to run"""
    interface: str | None = None
    """by which others are to reach it: a name or a subnet; None: by any"""

    def variable(self, name: str, asked: Asked) -> str | None:
        """What ranks there would find in a variable."""
        own: str | None = self.machine.get("environment", {}).get(name)
        return asked.environment.get(name, own)


@dataclass(frozen=True)
class Asked:
    """What the hosts are held to, the same for all."""

    environment: Mapping[str, str]
    """variables that ranks would get, besides those that their hosts have anyway"""
    code: str
    """digest of the launching scalelab"""
    inode: int | None = None
    """of the file that was written into ``--out``"""
    out: str | None = None
    shared: bool = False
    """whether --out has to be one folder for all hosts: on Slurm; over ssh it need not"""
