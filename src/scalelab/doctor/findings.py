"""What the doctor finds: lines of a table, and what ``--json`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from scalelab.record.figure import Figure

Status = Literal["ok", "warn", "fail", "absent"]
"""fit; works, with something to know; does not work; not there, and not needed by all"""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at on one host. ``fix`` is there where ``status`` is warn or fail."""

    check: str
    host: str
    status: Status
    found: str
    fix: str = ""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """How fast one host reaches another: a second of plain TCP over the addresses by which ranks would."""

    source: str
    target: str
    bytes_per_second: Figure
    """n windows of 0.1 s, counted by who receives"""
    round_trip_seconds: Figure
    """n bytes there and back"""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What ``scalelab doctor --json`` prints. ``fit``: nothing fails."""

    kind: Literal["doctor"] = "doctor"
    fit: bool
    hosts: list[str]
    findings: list[Finding]
    links: list[Link] = []


def diagnosis(hosts: Sequence[str], found: Sequence[Finding], links: Sequence[Link] = ()) -> Diagnosis:
    """What was found, and whether the hosts are fit by it."""
    return Diagnosis(
        fit=not any(one.status == "fail" for one in found), hosts=list(hosts), findings=list(found), links=list(links)
    )
