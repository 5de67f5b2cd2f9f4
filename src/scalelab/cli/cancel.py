"""``scalelab cancel``: end runs, studies and sweeps that are jobs of Slurm, in its queue or on its nodes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from scalelab.cli.flags import Parser, add_common
from scalelab.cli.places.slurm_kept import Entry, find
from scalelab.cli.terminal import console
from scalelab.errors import ScalelabError
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm import jobs
from scalelab.launch.slurm.settling import OPEN, settle, steps
from scalelab.record import folder as records

EXAMPLE = """  scalelab cancel nightly
  scalelab cancel 4711
  scalelab cancel runs/20260101T120000Z-basic_cnn-ddp-1a2b3c"""
PATIENCE, LOOK = 60.0, 0.5
"""seconds that the jobs are waited for (a training saves a checkpoint first), and between two looks"""


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """What ``cancel --json`` prints of each: the jobs that were ended, of how many; ``status`` is the record's, of a run."""

    folder: str
    jobs: list[str]
    status: str
    of: int


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    parser = Parser("cancel", "End runs, studies or sweeps that are jobs of Slurm; a training saves a checkpoint first.", EXAMPLE)
    parser.add_argument(
        "names", metavar="RUN|JOB", nargs="+", help="a folder, a unique part of its name, or a job's id; only ours"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="folder that holds them (default: runs, studies, sweeps, and where jobs are that squeue lists)",
    )
    add_common(parser)
    parsed = parser.parse(words)
    whole = {name: find(name, Path(parsed.out) if parsed.out else None) for name in parsed.names}
    sizes = {entry.folder: len(entry.jobs) for entry in whole.values()}
    found = named(whole)
    wanted = [job for entry in found.values() for job in entry.jobs]
    known = jobs.states(wanted)
    alive = [job for job in wanted if any(not state.over for state in known.all_of({job}))]
    over = [entry for entry in found.values() if not set(entry.jobs) & set(alive) and not _open(entry)]
    if over:
        raise ScalelabError(f"{over[0].folder}: its job is over already; `scalelab jobs --all` shows how it ended")
    for entry in found.values():
        if entry.record is None and len(entry.jobs) == sizes[entry.folder]:  # all of a study or a sweep
            places.mark_cancelled(entry.folder, True)
    if alive:
        jobs.cancel(alive)
    told = [_wait(entry, sizes[entry.folder]) for entry in found.values()]
    if parsed.json:
        print(msgspec.json.encode(told).decode())
    else:
        for one in told:
            part = f" (job {', '.join(one.jobs)} of its {one.of}; the others stay)" if len(one.jobs) < one.of else ""
            console().print(f"{one.folder}: {one.status}{part}", markup=False, soft_wrap=True)
    return 0


def named(whole: Mapping[str, Entry]) -> dict[Path, Entry]:
    """What was named, by folder: of a study or a sweep that was named by jobs of it, these jobs alone."""
    found: dict[Path, Entry] = {}
    for name, entry in whole.items():
        mine = (name,) if name.isdigit() else entry.jobs
        before = found[entry.folder].jobs if entry.folder in found else ()
        found[entry.folder] = replace(entry, jobs=tuple(job for job in entry.jobs if job in {*mine, *before}))
    return found


def _open(entry: Entry) -> bool:
    return entry.record is not None and entry.record.status in OPEN


def _wait(entry: Entry, of: int) -> Cancelled:
    """Until its jobs are over, and its record says so."""
    end = time.monotonic() + PATIENCE
    while True:
        known = jobs.states(entry.jobs)
        whole = [job for job in entry.jobs if "." not in job]  # of a step only the step was ended
        over = all(state.over for state in known.all_of(whole))
        status = "cancelled"
        if entry.record is not None:
            job = entry.jobs[-1]
            status = settle(entry.folder, records.load(entry.folder), job, known.of(job), steps([job])).status
        if over and status not in OPEN:
            return Cancelled(folder=str(entry.folder), jobs=list(entry.jobs), status=status, of=of)
        if time.monotonic() > end:
            status = "is being cancelled; scalelab jobs shows it"
            return Cancelled(folder=str(entry.folder), jobs=list(entry.jobs), status=status, of=of)
        time.sleep(LOOK)
