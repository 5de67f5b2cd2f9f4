"""A study's folder: ``study.json``, ``plan.json``, ``runs/`` with a folder for each training, ``report.html``.

What makes a study this one is kept in study.json. A training is found again by its spec: a study can be killed at any time,
and nothing but the training that was running is lost.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

from scalelab.errors import ScalelabError
from scalelab.record import document
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from scalelab.record.study import StudyRecord
from scalelab.spec import Spec, defaults, from_mapping
from scalelab.studies.study import SILENCE, Asked, Run, Study

FILE, PLAN, REPORT, RUNS = "study.json", "plan.json", "report.html", "runs"
OWN = (FILE, PLAN, REPORT, RUNS, "slurm", ".lock")
LOCAL = ("out", "name", "master_port", "timeout", "resume")
"""fields of the spec that say where and when, not what: they don't make another study, nor another training"""
BUSY = "working on this study"
PLACE = re.compile(r"(.+):(\d+)")
"""one of the hosts in ``Asked.where``, with its workers"""
MOST = 3
"""differences that a message lists"""


def identity(study: Study, asked: Asked) -> dict[str, Any]:
    """What makes a study this one and no other, as it is kept in study.json."""
    spec = {name: value for name, value in msgspec.to_builtins(asked.base).items() if name not in LOCAL}
    where = {"where": asked.where} if asked.where else {}
    options = {**asked.options, "cores": asked.cores, "quick": asked.quick, **where}
    found: dict[str, Any] = {"study": study.name, "spec": spec, "varied": asked.varied, "options": options}
    return found


def asked_of(kept: dict[str, Any]) -> Asked:
    """The question that study.json keeps: the reverse of ``identity``."""
    options = dict(kept["options"])
    cores, quick, where = options.pop("cores"), options.pop("quick"), options.pop("where", "")
    base = from_mapping({"timeout": SILENCE, **kept["spec"]})
    return Asked(base, kept["varied"], options, quick, cores, places_of(where), where)


def places_of(where: str) -> tuple[tuple[str, int], ...]:
    """The hosts in ``where`` with their workers; none where it names a cluster, which chooses them."""
    found = [PLACE.fullmatch(part) for part in where.split(",")]
    return tuple((one[1], int(one[2])) for one in found if one) if all(found) else ()


def read(folder: Path) -> StudyRecord | None:
    """The study.json of ``folder``; None where there is none. Raises ScalelabError for one that can't be read."""
    advice = f"remove it, and the same command finds its trainings again in {RUNS}/"
    try:
        return document.read(folder / FILE, StudyRecord, "a study", advice)
    except FileNotFoundError:
        return None


def refuse_another(folder: Path, study: Study, asked: Asked) -> StudyRecord | None:
    """What ``folder`` holds of this study; None for a new one.

    Raises ScalelabError where it holds another study or something else, or another process is at work there.
    """
    if not folder.exists():
        refuse_where_none_can_be(folder)
        return None
    if not folder.is_dir():
        raise ScalelabError(f"--out {str(folder)!r}: is not a folder; choose another")
    held = read(folder)
    strange = [path.name for path in folder.iterdir() if path.name not in OWN and not path.name.endswith(".tmp")]
    if held is None and strange:
        raise ScalelabError(f"--out {str(folder)!r}: holds something else than a study ({strange[0]}); choose another folder")
    if held is not None and (apart := differences(held.asked, identity(study, asked))):
        more = f" and {len(apart) - MOST} more" if len(apart) > MOST else ""
        raise ScalelabError(
            f"--out {str(folder)!r}: holds another study ({'; '.join(apart[:MOST])}{more}); choose another folder"
        )
    with records.held(folder, BUSY):
        return held


def refuse_where_none_can_be(folder: Path) -> None:
    """Raises ScalelabError where ``folder`` could not be made: plans take time, and that is known before."""
    above = next(place for place in folder.absolute().parents if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "may not be written" if above.is_dir() else "is not a folder"
        raise ScalelabError(f"--out {str(folder)!r}: cannot be made: {above} {why}; choose another")


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What two identities differ in, a few words each; of different studies only that."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(here))
    if there.get("study") != plain["study"]:
        return [f"{there.get('study')}"]
    defaulted = {"spec": defaults(), "varied": {}, "options": {"where": "this machine"}}
    found = []
    for part, fallback in defaulted.items():
        old, new = {**fallback, **there.get(part, {})}, {**fallback, **plain[part]}
        names = (name for name in {**new, **old} if name not in LOCAL and old.get(name) != new.get(name))
        found += [f"{name.replace('_', '-')} is {_said(old.get(name))} there, {_said(new.get(name))} here" for name in names]
    return found


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


class Finished:
    """The completed trainings in a folder, found by their specs and their repeats."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the study's; what there can't be read as a record is left where it is."""
        self.found: dict[bytes, tuple[Path, TrainRecord]] = {}
        readable, self.faults = records.load_all(records.find([], folder / RUNS), named=False)
        for path, record in readable.items():
            self.add(path, record)

    def add(self, folder: Path, record: TrainRecord) -> None:
        """Take in a training, if it was completed."""
        if record.status == "completed":
            self.found.setdefault(key(record.spec), (folder, record))

    def of(self, spec: Spec, repeat: int) -> Run | None:
        """The finished training of ``spec``, or None."""
        found = self.found.get(key(msgspec.to_builtins(spec)))
        return None if found is None else Run(repeat, *found)


def key(spec: dict[str, Any]) -> bytes:
    """What a training is known by: its spec without where and when, and by which repeat on which hosts its name ends with."""
    values = {**defaults(), **spec}
    repeat = str(values["name"]).rpartition(", ")[2]
    return msgspec.json.encode([repeat, {name: value for name, value in values.items() if name not in LOCAL}], order="sorted")


def clear(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def save(folder: Path, record: StudyRecord) -> None:
    """Replace study.json."""
    records.write_atomic(folder / FILE, msgspec.json.format(msgspec.json.encode(record), indent=1))
