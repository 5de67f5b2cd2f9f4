"""Carrying out the tasks of a sweep, begun or gone on with: the terminal meanwhile, and the exit status."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from scalelab.cli.sweep.shown import finish, show_status
from scalelab.cli.sweep.watch import SweepWatch
from scalelab.errors import RunError, ScalelabError
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm.arrays import Sent
from scalelab.launch.slurm.programs import SlurmError
from scalelab.record import text
from scalelab.record.sweep import PlannedTask, SweepRecord, SweepStatus, TaskRecord
from scalelab.sweep import job, keeping, slurm, standing
from scalelab.sweep.job import HIDDEN, Job

DOING = "running or submitting this sweep"
"""what another process is told that would do so too"""
POLL = (1.0, 15.0)
"""seconds between two looks at Slurm's queue: a twentieth of the time that has passed, between these"""


def here(
    folder: Path,
    sweep: SweepRecord,
    tasks: Sequence[PlannedTask],
    records: Mapping[int, TaskRecord],
    env: Mapping[str, str],
    as_json: bool,
    err: Console,
) -> int:
    """Run tasks of a sweep from this process, here or over hosts; the exit status. ``records``: those of tasks that ended before."""
    more = f"{len(tasks)} of " if len(tasks) < sweep.tasks else ""
    first = f"{folder}: {more}{text.counted(sweep.tasks, 'task')}" + (" are to be run" if more else "")
    with SweepWatch(err, sweep, records, len(tasks), first) as watch:
        try:
            from scalelab.sweep import placing  # crews and hosts, which who only looks at a sweep has no use for

            placing.run(folder, sweep, jobs(sweep, tasks, env), watch)
        except (KeyboardInterrupt, RunError):
            watch.__exit__()
            err.print(how_to_go_on(folder, sweep), markup=False)
            raise
    return finish(folder, sweep, as_json, err)


def jobs(sweep: SweepRecord, tasks: Sequence[PlannedTask], env: Mapping[str, str]) -> list[Job]:
    """What the runners are told."""
    shared = msgspec.to_builtins(sweep)
    return [job.of(shared, msgspec.to_builtins(task), env) for task in tasks]


def how_to_go_on(folder: Path, sweep: SweepRecord) -> str:
    """``137 of 200 tasks are completed and kept; … runs the rest``."""
    done = sum(record.status == "completed" for record in keeping.results(folder).values())
    return f"{done} of {sweep.tasks} tasks are completed and kept; `scalelab sweep resume {folder}` runs the rest"


def known_again(sweep: SweepRecord) -> dict[str, str]:
    """What is set for every task, when a sweep goes on. Raises ScalelabError for a secret that is not in the environment now."""
    found = dict(sweep.env)
    for name, value in sweep.env.items():
        if value == HIDDEN:
            if name not in os.environ:
                raise ScalelabError(
                    f"--env {name}: its value was not kept, because it is a secret; set {name} in the environment first"
                )
            found[name] = os.environ[name]
    return found


def on_slurm(folder: Path, sweep: SweepRecord, tasks: Sequence[int], wait: bool, as_json: bool, err: Console) -> int:
    """Submit tasks as arrays, and follow them where asked to; the exit status."""
    places.mark_cancelled(folder, False)
    before = keeping.results(folder)
    sent = slurm.send(folder, sweep, tasks, sorted(slurm.queue(folder).arrays) if tasks else [])
    tell_sent(sent, err)
    if wait:
        follow(folder, sweep, before, sent.left, err)
        found, _ = standing_now(folder, sweep)
        show_status(found, sweep, as_json)
        return 0 if found.completed == sweep.tasks else 1
    if sent.left:
        err.print(
            f"{len(sent.left)} of {len(tasks)} tasks are not submitted yet: {sent.why}; "
            f"`scalelab sweep resume {folder}` submits them when there is room, with --wait by itself",
            markup=False, style="yellow",
        )  # fmt: skip
    found, _ = standing_now(folder, sweep)
    show_status(found, sweep, as_json)
    return 0


def tell_sent(sent: Sent[int, slurm.Array], err: Console) -> None:
    """The arrays' numbers, and where their output is."""
    for one in sent.arrays:
        err.print(f"Slurm array {one.job}: {text.counted(one.tasks, 'task')}", markup=False)


def follow(folder: Path, sweep: SweepRecord, before: Mapping[int, TaskRecord], left: Sequence[int], err: Console) -> None:
    """Until nothing of the sweep is in Slurm's hands; ``left`` is submitted as room comes. Ctrl-C leaves the jobs as they are.

    ``before``: what was there already, and is not told again. Raises RunError when Slurm will not have the rest, or would hold all of it
    for ever: then the sweep is cancelled.
    """
    waiting, began = list(left), time.monotonic()
    with SweepWatch(err, sweep, before, sweep.tasks) as watch:
        try:
            while True:
                records = keeping.results(folder, watch.records)
                if places.cancelled(folder):  # from another terminal: nothing more begins
                    waiting = []
                try:
                    queue = slurm.queue(folder)
                    if waiting and len(queue.waiting) <= len(waiting) // 2:
                        sent = slurm.send(folder, sweep, waiting, sorted(queue.arrays))
                        waiting = sent.left
                        queue = slurm.queue(folder)
                except SlurmError as error:
                    if not slurm.down(error):
                        raise RunError(f"{error}; {how_to_go_on(folder, sweep)}") from None
                    watch.note(str(error))  # jobs go on, and results are files
                else:
                    watch.stands(records, queue.running, queue.waiting | set(waiting))
                    if (held := slurm.without_hope(queue)) and not queue.running and records == before:  # else it had hope once
                        places.mark_cancelled(folder, True)
                        slurm.cancel(folder, sorted(queue.arrays))
                        raise RunError(f"{folder}: {held}; this one is cancelled")
                    if not queue.waiting and not queue.running and not waiting:
                        return
                _pause(folder, min(max((time.monotonic() - began) / 20, POLL[0]), POLL[1]))
        except KeyboardInterrupt:
            watch.__exit__()
            err.print(
                f"the jobs go on; `scalelab sweep status {folder}` shows them, `scalelab sweep cancel {folder}` ends them",
                markup=False,
            )
            raise


def _pause(folder: Path, seconds: float) -> None:
    """So long, or until the sweep is cancelled from elsewhere."""
    end, before = time.monotonic() + seconds, places.cancelled(folder)
    while (left := end - time.monotonic()) > 0 and places.cancelled(folder) == before:
        time.sleep(min(left, POLL[0] / 4))


def standing_now(folder: Path, sweep: SweepRecord) -> tuple[SweepStatus, list[keeping.TaskState]]:
    """How a sweep stands, whoever runs it, and each of its tasks: one call of squeue at most, and of sacct where it has forgotten.

    Who runs is looked for before the records are read: a task that ends in between has its record, and is not taken for lost.
    """
    notes: list[str] = []
    silent: list[str] = []
    if sweep.place == "slurm":
        try:
            queue = slurm.queue(folder)
            records = keeping.results(folder)
            states = keeping.states(sweep.tasks, records, False, queue.waiting, queue.running)
            notes += slurm.why_waiting(queue)
            unheard = [task for task, state in enumerate(states) if state == "missing"]
            silent += slurm.why_silent(folder, slurm.ended(folder, queue, unheard)) if unheard else []
        except SlurmError as error:
            records = keeping.results(folder)
            notes.append(f"Slurm could not be asked, so what waits or is lost is not known: {error}")
            states = keeping.states(sweep.tasks, records, None)
        said = slurm.log_line(folder)
        told = said and {"lost", "missing"} & set(states) and not places.cancelled(folder)
        notes += [f"Slurm's jobs said: {said}"] if told else []
    else:
        by = keeping.launcher(folder)
        alive = by.alive if by is not None else False
        records = keeping.results(folder)
        notes += (
            [f"it runs on {by.host}; whether it still does can't be seen from here"] if by is not None and alive is None else []
        )
        states = keeping.states(sweep.tasks, records, alive)
    return standing.status(folder, sweep, states, records, states.count("running"), notes, silent), states
