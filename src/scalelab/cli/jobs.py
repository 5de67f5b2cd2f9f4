"""``scalelab jobs``: how all runs, studies and sweeps stand that Slurm has, or had, in its hands."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from scalelab.cli.columns import lines
from scalelab.cli.flags import Parser, add_common
from scalelab.cli.places.slurm_kept import Entry, elsewhere, entries, looked_in
from scalelab.cli.places.slurm_several import KINDS
from scalelab.cli.terminal import console
from scalelab.launch.slurm.jobs import Known, State, queue, seconds, states
from scalelab.launch.slurm.programs import SlurmError
from scalelab.launch.slurm.settling import settle, steps

EXAMPLE = """  scalelab jobs
  scalelab jobs --out /shared/runs --all
  scalelab jobs --json"""
COLUMNS = ("run", "job", "status", "Slurm", "reason", "used", "left", "attempts", "nodes")
LEAST = {"reason": 24, "Slurm": 12, "nodes": 10, "job": 10}
"""columns that give way where a terminal is narrow, and to how many letters"""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of ``scalelab jobs``. ``state``, ``reason``, ``elapsed``, ``left`` and ``nodes`` are Slurm's own words."""

    kind: str
    folder: str
    job: str
    status: str
    """the record's: queued, running, completed, failed, interrupted, lost; partly and cancelled too, of studies and sweeps"""
    state: str = ""
    """of several jobs or tasks: how many are in which"""
    reason: str = ""
    """why it waits, or why its last attempt ended"""
    elapsed: str = ""
    left: str = ""
    attempts: int = 0
    nodes: str = ""


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    parser = Parser(
        "jobs", "How runs, studies and sweeps stand that are jobs of Slurm; records whose job died unheard are closed.", EXAMPLE
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="folder that holds them (default: runs, studies, sweeps, and where jobs are that squeue lists)",
    )
    parser.add_argument("--all", action="store_true", help="also those that ended more than a day ago")
    add_common(parser)
    parsed = parser.parse(words)
    out = Path(parsed.out) if parsed.out else None
    found = entries(out)
    seen, silent = _listed(bool(found))
    found += elsewhere(seen, found) if out is None else []
    alive = {job.partition("_")[0] for job, state in seen.items() if not state.over}
    if not parsed.all:
        found = [entry for entry in found if _recent(entry) or alive & {job.partition("_")[0] for job in entry.jobs}]
    known = states((job for entry in found for job in entry.jobs), seen)
    going = steps(entry.jobs[-1] for entry in found if entry.status == "running")
    found = [_settled(entry, known, going) for entry in found]
    rows = [row(entry, known) for entry in found]
    known = replace(known, without=known.without or silent)
    if parsed.json:
        print(msgspec.json.encode({"jobs": rows, "without": known.without}).decode())
        return 0
    if not rows:
        old = " of the last day, --all: of any" if entries(out) else ""
        said = f"no jobs of ours{old} in {looked_in(out)}; --out names another folder, `scalelab train --slurm` submits one"
        console().print(said, markup=False, soft_wrap=True)
        return 0
    show(rows)
    if known.without:
        console(to_stderr=True).print(
            f"what ended longer ago is known from records only: {known.without}", markup=False, soft_wrap=True
        )
    return 0


def _listed(needed: bool) -> tuple[dict[str, State], str | None]:
    """What squeue lists, and why it could not be asked. Raises SlurmError for that where it is ``needed``: there are jobs to be shown."""
    try:
        return queue(), None
    except SlurmError as error:
        if needed:
            raise
        return {}, str(error)


def _recent(entry: Entry, seconds: float = 86400.0) -> bool:
    """Whether it is not over, as far as its files tell, or was touched in the last day."""
    if entry.status in ("queued", "running"):
        return True
    newest = max((path.stat().st_mtime for path in (entry.folder, *entry.folder.glob("*.json"))), default=0.0)
    return time.time() - newest < seconds


def _settled(entry: Entry, known: Known, going: Collection[str] | None) -> Entry:
    if entry.record is None:
        return entry
    record = settle(entry.folder, entry.record, entry.jobs[-1], known.of(entry.jobs[-1]), going)
    return replace(entry, record=record, status=record.status)


def row(entry: Entry, known: Known) -> Row:
    """What is to be said of an entry."""
    if entry.record is None:
        return _several(entry, known)
    state, record = known.of(entry.jobs[-1]), entry.record
    last = record.attempts[-1]
    before = next((one.why for one in reversed(record.attempts[:-1]) if one.why), None) if last.status == "queued" else None
    failed = record.failure.error if record.failure else ""
    reason = (failed if not last.began else "") or last.why or failed or (f"after: {before}" if before else "")
    if state is not None and state.waiting:
        reason = "; ".join(filter(None, (state.reason, reason)))
    ran = [one for one in record.attempts if one.began]
    return Row(
        kind=entry.kind, folder=str(entry.folder), job=entry.jobs[-1], status=record.status, state=state.state if state else "",
        reason=reason, elapsed=state.elapsed if state else "", left=state.left if state and state.running else "",
        attempts=len(ran), nodes=state.nodes if state else "",
    )  # fmt: skip


def _several(entry: Entry, known: Known) -> Row:
    """Of a study or a sweep: its tasks, counted; the longest times of those that run."""
    found = KINDS[entry.kind](entry.folder, known)
    runs = [state for state in found.living if state.running]
    reasons = Counter(state.reason for state in found.living if state.waiting and state.reason)
    return Row(
        kind=entry.kind, folder=str(entry.folder), job=" ".join(entry.jobs), status=found.status,
        state=", ".join(f"{count} {state}" for state, count in found.counts.most_common() if count),
        reason=", ".join(reason for reason, _ in reasons.most_common(3)),
        elapsed=_longest([state.elapsed for state in runs]), left=_longest([state.left for state in runs]),
        nodes=",".join(sorted({state.nodes for state in runs if state.nodes})),
    )  # fmt: skip


def _longest(times: Sequence[str]) -> str:
    """Of times as Slurm has them; what is none, such as UNLIMITED, is longest."""
    return max(filter(None, times), key=lambda time: float("inf") if (found := seconds(time)) is None else found, default="")


def show(rows: list[Row]) -> None:
    """A line each, and its folder in one piece; columns in which nothing stands are left out."""
    cells = [
        (_short(r.folder), r.job, r.status, r.state, r.reason, r.elapsed, r.left, str(r.attempts or ""), r.nodes) for r in rows
    ]
    out = console()
    width = out.width if out.is_terminal else sys.maxsize  # else a row is a line, for grep
    for line in lines(COLUMNS, cells, width, LEAST):
        out.print(line, markup=False, soft_wrap=True)


def _short(folder: str) -> str:
    """A folder as it is named from here, where that is shorter."""
    here = os.path.relpath(folder)
    return here if len(here) < len(folder) else folder
