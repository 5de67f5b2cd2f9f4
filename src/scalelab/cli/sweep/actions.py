"""``scalelab sweep status|resume|results|cancel FOLDER``."""

from __future__ import annotations

import os
import shlex
import signal
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import msgspec

from scalelab.cli.flags import Parser, add_common
from scalelab.cli.sweep import running
from scalelab.cli.sweep.shown import show_rows, show_status
from scalelab.cli.terminal import console
from scalelab.errors import RunError, ScalelabError, unknown
from scalelab.launch.slurm import folder as places
from scalelab.record.atomic import write_atomic
from scalelab.record.export import WRITERS
from scalelab.record.folder import held
from scalelab.record.sweep import SweepRecord
from scalelab.sweep import keeping, planning, slurm
from scalelab.sweep.standing import OWN_METRICS
from scalelab.sweep.table import TaskRow, best_first, flat, rows

FIRST = 20
"""rows of a table in a terminal, unless asked for more"""
PATIENCE = 20.0
"""seconds until a launcher that was told to end has ended: its tasks get three"""


def status(words: list[str]) -> int:
    """Counts, the best so far, what failed; 1 where a task has failed or was lost, or Slurm ended its job without a record."""
    parsed = _parser("status", "How a sweep stands: counts, the best so far, what failed.").parse(words)
    folder = Path(parsed.folder)
    sweep = keeping.load(folder)
    found, _ = running.standing_now(folder, sweep)
    show_status(found, sweep, parsed.json)
    return 1 if found.failures else 0


def resume(words: list[str]) -> int:
    """Run what is not completed."""
    parser = _parser("resume", "Run what failed, was ended or lost, or has not begun; what is completed stays.")
    parser.add_argument("--jobs", metavar="N", help="tasks at once on this machine, instead of what the sweep was begun with")
    parser.add_argument("--wait", action="store_true", help="Slurm: follow it to its end, and submit what did not fit at once")
    parsed = parser.parse(words)
    folder = Path(parsed.folder)
    sweep = _with_jobs(keeping.load(folder), parsed.jobs)
    if parsed.wait and sweep.place != "slurm":
        raise ScalelabError("--wait is of a sweep on Slurm; this one runs from here, and is followed anyway")
    if sweep.place != "slurm" and (by := keeping.launcher(folder)) is not None and by.alive:
        raise ScalelabError(
            f"{folder}: process {by.pid} is running this sweep now; wait for it, or `scalelab sweep cancel {folder}`"
        )
    env = running.known_again(sweep)
    with held(folder, running.DOING):  # before the look at what is left: two at a time would run the same tasks
        return _go_on(folder, sweep, env, parsed)


def _go_on(folder: Path, sweep: SweepRecord, env: dict[str, str], parsed: Namespace) -> int:
    _, states = running.standing_now(folder, sweep)
    err = console(to_stderr=True)
    again = keeping.open_tasks(states)
    if not again and not (parsed.wait and {"queued", "running"} & set(states)):
        err.print("nothing is left to be run", markup=False)
        return status([parsed.folder, *(["--json"] if parsed.json else [])])
    if sweep.place == "slurm":
        return running.on_slurm(folder, sweep, again, parsed.wait, parsed.json, err)
    tasks = keeping.plan(folder, sweep)
    if sweep.place == "local" and sweep.placing.get("jobs") != 1:
        planning.apart(sweep.metrics, tasks)
    kept = {task: record for task, record in keeping.results(folder).items() if states[task] == "completed"}
    return running.here(folder, sweep, [tasks[task] for task in again], kept, env, parsed.json, err)


def results(words: list[str]) -> int:
    """The tasks as a table, or a file."""
    parser = _parser("results", "The tasks with their values, metrics, times: a table, or a file.")
    parser.add_argument("-o", "--output", metavar="FILE", help="write all of them: .csv, .parquet, or .html, a page")
    parser.add_argument("--sort", metavar="NAME", help="a metric or parameter to sort by (default: the best first)")
    parser.add_argument("--all", action="store_true", help=f"more than {FIRST} rows")
    parser.add_argument("--failed", action="store_true", help="those that are not completed")
    parsed = parser.parse(words)
    folder = Path(parsed.folder)
    sweep = keeping.load(folder)
    _sortable(sweep, parsed.sort)
    _, states = running.standing_now(folder, sweep)
    found = best_first(sweep, rows(sweep, keeping.plan(folder, sweep), states, keeping.results(folder)), parsed.sort)
    if parsed.failed:
        found = [row for row in found if row.state in ("failed", "interrupted", "lost")]
    if parsed.output:
        return _write(parsed, folder, sweep, found)
    if parsed.json:
        print(msgspec.json.encode(found).decode())
    else:
        show_rows(console(), sweep, found if parsed.all else found[:FIRST], len(found))
    return 0


def cancel(words: list[str]) -> int:
    """End what runs of a sweep; what is completed stays."""
    parsed = _parser("cancel", "End what runs of a sweep, and begin nothing more; what is completed stays.").parse(words)
    folder = Path(parsed.folder)
    sweep = keeping.load(folder)
    if sweep.place == "slurm":
        places.mark_cancelled(folder, True)  # who follows it, wherever, submits no more
        known: set[str] = set()
        _until(lambda: _none_left(folder, known))
    else:
        _end_launcher(folder)
    found, _ = running.standing_now(folder, sweep)
    show_status(found, sweep, parsed.json)
    return 0


ACTIONS: dict[str, Callable[[list[str]], int]] = {"status": status, "resume": resume, "results": results, "cancel": cancel}


def _parser(action: str, about: str) -> Parser:
    parser = Parser(f"sweep {action}", about, f"  scalelab sweep {action} sweeps/20260101T120000Z-train-1a2b3c")
    parser.add_argument("folder", metavar="FOLDER", help="the sweep's folder")
    add_common(parser)
    return parser


def _with_jobs(sweep: SweepRecord, jobs: str | None) -> SweepRecord:
    if jobs is None:
        return sweep
    if sweep.place != "local":
        raise ScalelabError(f"--jobs is for this machine; this sweep runs on {sweep.place}")
    from scalelab.cli.sweep import flags  # all that a new sweep may be asked

    return msgspec.structs.replace(sweep, placing={**sweep.placing, "jobs": flags.at_once(jobs)})


def _sortable(sweep: SweepRecord, name: str | None) -> None:
    known = [*(one.name for one in sweep.metrics), *sweep.parameters, *OWN_METRICS]
    if name is not None and name not in known:
        raise unknown("metric or parameter", name, known)


def _write(parsed: Namespace, folder: Path, sweep: SweepRecord, found: list[TaskRow]) -> int:
    path = Path(parsed.output)
    kind = path.suffix.removeprefix(".")
    if kind not in (*WRITERS, "html"):
        raise unknown("kind of file", kind, [*WRITERS, "html"], " (what its name ends in)")
    if not path.parent.is_dir():
        raise ScalelabError(f"-o {parsed.output}: the folder {str(path.parent)!r} does not exist; make it, or choose another -o")
    if kind == "html":
        import scalelab.report.sweep as page  # jinja2 and numpy, for this alone

        page.write(folder, sweep, found, path)
    else:
        told = {row.task: shlex.join(row.argv) for row in found}
        write_atomic(path, WRITERS[kind]([{**row, "command": told[row["task"]]} for row in flat(sweep, found, typed=True)]))
    if parsed.json:
        print(msgspec.json.encode({"output": str(path), "tasks": len(found)}).decode())
    else:
        console().print(f"{path}: {len(found)} task{'s' * (len(found) != 1)}", markup=False)
    return 0


def _end_launcher(folder: Path) -> None:
    by = keeping.launcher(folder)
    if by is None or by.alive is False:
        return
    if by.alive is None:
        raise ScalelabError(f"{folder}: it runs on {by.host}: `scalelab sweep cancel` there ends it")
    try:
        os.kill(by.pid, signal.SIGTERM)
    except ProcessLookupError:  # it has just ended
        return
    except PermissionError:
        raise ScalelabError(f"{folder}: process {by.pid} runs it, and is another user's") from None
    if not _until(lambda: keeping.launcher(folder) != by or by.alive is False):
        raise RunError(f"{folder}: process {by.pid} has not ended after {PATIENCE:g} s")


def _none_left(folder: Path, told: set[str]) -> bool:
    """Whether Slurm has nothing of it any more, and nobody submits any; arrays that were not told yet to end are told."""
    try:
        with held(folder, running.DOING):
            free = True
    except ScalelabError:  # who follows it may just have called sbatch, and ends soon
        free = False
    arrays = slurm.queue(folder).arrays
    slurm.cancel(folder, sorted(arrays - told))
    told |= arrays
    return free and not arrays


def _until(happened: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
