"""``scalelab study NAME --slurm``: the study's trainings as jobs of Slurm, its report as the last of them."""

from __future__ import annotations

import os
import shlex
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table as Grid

from scalelab.cli.numbers import whole
from scalelab.cli.places.hosts import MEANT
from scalelab.cli.places.on_slurm import FLAGS
from scalelab.cli.places.slurm_kept import how_to_look
from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.launch.slurm.hopeless import HOPELESS
from scalelab.launch.slurm.request import Request
from scalelab.record import folder as records
from scalelab.record import text
from scalelab.record.study import StudyRecord
from scalelab.studies.running import keeping, planning, running
from scalelab.studies.running.planning import Case, Planned
from scalelab.studies.slurm import kept
from scalelab.studies.slurm.concluding import GOING, NOT_SUBMITTED, WAITS, Stand, again, conclude_now, look, planned_of, under_way
from scalelab.studies.slurm.login import Login
from scalelab.studies.slurm.submitting import Submitted, Wishes, Written, submit_all, submit_more, without_hope, write
from scalelab.studies.study import Asked, Study

OWN = ("workers_per_node", "cpus_per_task", "gpus_per_node", "partition", "time", "account")
"""of the flags of ``train --slurm`` those that a study has too: its nodes follow from its workers"""
LOOK, SLOWEST = 2.0, 30.0
"""seconds between two looks at the queue: a twentieth of the time that it has been followed, but no less and no more than these"""
SLURMS = "Slurm chooses the hosts, and sbatch takes this environment along"
Finish = Callable[[Path, StudyRecord], int]
"""shows a study that is concluded; the exit status"""


def add_slurm(parser: ArgumentParser) -> None:
    """The flags of a study that runs as jobs."""
    group = parser.add_argument_group("Slurm: an array of jobs for each number of workers, and one for the report")
    group.add_argument("--slurm", action="store_true", help="submit the trainings as jobs; the same command again goes on")
    group.add_argument("--slurm-dry-run", action="store_true", help="write the plan and all scripts, submit nothing")
    group.add_argument("--wait", action="store_true", help="follow the jobs, and show the study when they are over")
    group.add_argument(
        "--one-by-one", action="store_true", help="no two trainings at once: where jobs share nodes they disturb each other"
    )
    for name, (metavar, said) in FLAGS.items():
        if name in OWN:
            group.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=said)
    group.add_argument(
        "--slurm-arg", metavar="OPTION", action="append", help="any option of sbatch (repeatable): --slurm-arg=--exclusive"
    )


def wanted(parsed: Namespace) -> bool:
    """Whether the study is to be jobs. Raises ScalelabError for flags that mean something only then."""
    if parsed.slurm or parsed.slurm_dry_run:
        for other in ("on", *MEANT, "dry_run"):
            if getattr(parsed, other, None):
                why = "--slurm-dry-run writes all and submits nothing" if other == "dry_run" else SLURMS
                raise ScalelabError(f"--{other.replace('_', '-')}: not with --slurm: {why}")
        return True
    given = next((name for name in (*OWN, "slurm_arg", "wait", "one_by_one") if getattr(parsed, name)), None)
    if given:
        raise ScalelabError(f"--{given.replace('_', '-')}: means something with --slurm only")
    return False


def wishes_of(parsed: Namespace) -> Wishes:
    """What the flags ask of the study's jobs. Raises ScalelabError."""
    request = Request(
        cpus_per_task=_count(parsed, "cpus_per_task", 1), gpus_per_node=_count(parsed, "gpus_per_node", 0), partition=parsed.partition,
        time=parsed.time, account=parsed.account, args=tuple(parsed.slurm_arg or ()),
    )  # fmt: skip
    files = [("--csv", parsed.csv), ("-o", parsed.report)]
    copies = tuple(word for flag, path in files if path for word in (flag, str(Path(path).resolve())))
    return Wishes(request, _count(parsed, "workers_per_node", 1), parsed.one_by_one, copies)


def _count(parsed: Namespace, name: str, least: int) -> int:
    given = getattr(parsed, name)
    return least if given is None else whole(f"--{name.replace('_', '-')}", given, least)


def asked_there(asked: Asked, wishes: Wishes) -> Asked:
    """The question with the nodes' CPUs: each worker has ``--cpus-per-task`` threads, in every row.

    Raises ScalelabError where the spec says otherwise.
    """
    cpus, base = wishes.request.cpus_per_task, asked.base
    if base.threads_per_worker not in (None, cpus):
        raise ScalelabError(
            f"--threads-per-worker {base.threads_per_worker}: a worker has --cpus-per-task {cpus} threads; leave it out"
        )
    device = "cpu" if base.device == "auto" and not wishes.request.gpus_per_node else base.device
    base = msgspec.structs.replace(base, threads_per_worker=cpus, device=device)
    where = (
        f"Slurm{f' partition {wishes.request.partition}' if wishes.request.partition else ''}, {wishes.per_node} workers a node"
    )
    return Asked(base, asked.varied, asked.options, asked.quick, cpus, where=where)


def refuse_hosts(study: Study) -> None:
    """Raises ScalelabError for a study that is about hosts."""
    if study.hosts:
        raise ScalelabError(
            f"study {study.name} compares hosts by name, and Slurm chooses them: give --hosts in place of --slurm"
        )


def run(study: Study, parsed: Namespace, folder: Path, asked: Asked, repeats: int, err: Console, finish: Finish) -> int:
    """Plan, write, submit; with ``--wait`` follow. The exit status."""
    wishes = wishes_of(parsed)
    folder = folder.resolve()
    keeping.refuse_another(folder, study, asked)
    alive = under_way(folder)
    if alive and kept.read(folder).left and not parsed.slurm_dry_run:
        with records.held(folder, keeping.BUSY):
            more = submit_more(folder, alive, wishes.one_by_one)
        tell_more(folder, more, err)
        if not parsed.wait:
            return told(folder, parsed.json)
    if alive and parsed.wait:
        return follow(folder, wishes.one_by_one, err, finish)
    refuse_twice(folder)
    with Pool() as pool:
        login = Login(pool, wishes.per_node, wishes.request.cpus_per_task, wishes.request.gpus_per_node)
        planned = planning.plan(login, study, asked, repeats, folder, lambda line: err.print(line, markup=False, style="dim"))
    tell_refused(err, planned)
    if not planned.missing:
        return finish(folder, conclude_now(folder))
    running.make_folder(folder)
    with records.held(folder, keeping.BUSY):
        refuse_twice(folder)  # again: plans take time
        written = begin(planned, wishes)
        submitted = None if parsed.slurm_dry_run else submit_all(folder, wishes.one_by_one)
    if submitted is None:
        show(err, written, "written, not submitted", planned.cases)
    else:
        tell_submitted(folder, written, submitted, err, planned.cases)
        if parsed.wait:
            return follow(folder, wishes.one_by_one, err, finish)
        err.print(how_to_look("study", folder, folder.name), markup=False, soft_wrap=True)
    return told(folder, parsed.json)


def told(folder: Path, as_json: bool) -> int:
    """What was submitted, for programs; the exit status."""
    if as_json:
        print(msgspec.json.encode({"folder": str(folder), **msgspec.to_builtins(kept.read(folder))}).decode())
    return 0


def tell_submitted(
    folder: Path, written: Sequence[Written], submitted: Submitted, err: Console, cases: Sequence[Case] = ()
) -> None:
    """What became of each."""
    report = f"the report as job {submitted.jobs.report}" if submitted.lacking is None else "without the report"
    show(err, written, f"submitted, {report}; in {from_here(folder)}", cases)
    tell_more(folder, submitted, err)


def tell_more(folder: Path, submitted: Submitted, err: Console) -> None:
    """Each array, or part of one, and its job, or why there is none; what the site had no room for. What has no hope is cancelled."""
    if submitted.lacking is not None:
        said = f"report: {submitted.lacking}; when all are over: scalelab study --conclude {shlex.quote(from_here(folder))}"
        err.print(said, markup=False, style="yellow", soft_wrap=True)
    for job in submitted.mine:
        if job.later is None:
            some = f", {text.counted(len(job.trainings), 'training')}" if submitted.of(job.name) > 1 else ""
            said = f"{job.name}: job {job.id}{some}" if job.id else f"{job.name}: {job.refused}"
            err.print(said, markup=False, style=None if job.id else "yellow")
    if left := submitted.jobs.left:
        count = text.counted(sum(len(job.trainings) for job in left), "training")
        said = f"{count} not submitted yet: {left[0].later}; the same command again submits what there is room for, with --wait by itself"
        err.print(said, markup=False, style="yellow", soft_wrap=True)
    if submitted.taken:
        without_hope(folder, submitted.jobs, lambda line: err.print(line, markup=False, style="yellow"))


def tell_refused(err: Console, planned: Planned) -> None:
    """The points that can't run at all."""
    for case in planned.cases:
        if case.refused is not None:
            err.print(f"can't run: {case.point.label}: {case.refused}", markup=False, style="yellow")


def refuse_twice(folder: Path) -> None:
    """Raises ScalelabError where jobs of the study in ``folder`` are not over, or Slurm does not say whether they are."""
    if alive := under_way(folder):
        raise ScalelabError(f"{again(alive)}; --wait follows, `scalelab cancel {shlex.quote(from_here(folder))}` ends")


def begin(planned: Planned, wishes: Wishes) -> list[Written]:
    """The study's record, its plan and its scripts, in its folder, which is held. Raises ScalelabError."""
    keeping.clear(planned.folder)
    record = running.begin(planned)
    record.status = "submitted"
    keeping.save(planned.folder, record)
    planning.keep(planned)
    return write(planned, wishes, Path.cwd())


def refused_sizes(cases: Sequence[Case]) -> list[tuple[str, str, str, str, str]]:
    """The rows of sizes of which points can't run, told before: how many points."""
    sizes = Counter(case.point.spec.workers for case in cases if case.refused is not None)
    return [("–", "–", str(size), "0", f"can't run: {text.counted(count, 'point')}") for size, count in sorted(sizes.items())]


def show(err: Console, written: Sequence[Written], what: str, cases: Sequence[Case] = ()) -> None:
    """Each job, its size, its script; and what of ``cases`` has none."""
    grid = Grid(box=None, pad_edge=False)
    for name in ("job", "nodes", "workers", "trainings", "script"):
        grid.add_column(name, justify="right" if name in ("nodes", "workers", "trainings") else "left", overflow="fold")
    for one in written:
        if one.array is None:
            grid.add_row("report", "1", "", "", from_here(one.script))
        else:
            shape = one.array.shape
            size = str(shape.nodes), f"{shape.nodes} × {shape.per_node}"
            grid.add_row(one.array.name, *size, str(len(one.array.trainings)), from_here(one.script))
    for row in refused_sizes(cases):
        grid.add_row(*row, style="yellow")
    err.print(grid)
    err.print(what, markup=False, soft_wrap=True)


def from_here(path: Path) -> str:
    """A path as it is named from this folder, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def progress(stand: Stand, total: int) -> str:
    """``3 of 6 trainings have ended, 1 runs, 2 wait (Resources), 5 are not submitted yet``; what can't run has been told."""
    waiting = [why.removeprefix(WAITS) for why in stand.absent.values() if why.startswith(WAITS)]
    running = sum(why.startswith(GOING) for why in stand.absent.values())
    left = sum(why.startswith(NOT_SUBMITTED) for why in stand.absent.values())
    parts = [f"{len(stand.runs)} of {total} trainings have ended"]
    parts += [f"{running} run{'s' * (running == 1)}"] if running else []
    parts += [f"{len(waiting)} wait{'s' * (len(waiting) == 1)} ({', '.join(sorted(set(waiting)))})"] if waiting else []
    parts += [f"{left} {'is' if left == 1 else 'are'} not submitted yet"] if left else []
    return ", ".join(parts)


def follow(folder: Path, one_by_one: bool, err: Console, finish: Finish) -> int:
    """Until no job of the study is left; then its findings. Ctrl-C leaves the jobs as they are."""
    planned, said, began, rest = planned_of(folder), "", time.monotonic(), Rest(folder, one_by_one, err)
    try:
        while True:
            stand = look(planned)
            more = rest.submit(stand)
            if not (stand.silent or stand.alive or stand.report or more):
                break
            now = f"{stand.silent}; the jobs may go on, so this waits on" if stand.silent else progress(stand, len(planned.order))
            if now != said:
                err.print(now, markup=False)
                said = now
            if any(
                why.removeprefix(WAITS) in HOPELESS for why in stand.absent.values()
            ):  # Slurm sees so only when their turn comes
                without_hope(folder, kept.read(folder), lambda line: err.print(line, markup=False, style="yellow"))
            time.sleep(min(SLOWEST, max(LOOK, (time.monotonic() - began) / 20)))
            planned = planned_of(folder)
    except KeyboardInterrupt:
        err.print(f"the jobs go on; `scalelab cancel {shlex.quote(str(folder))}` ends them, --wait follows again", markup=False)
        raise
    return finish(folder, conclude_now(folder))


class Rest:
    """What the site had no room for, submitted as trainings end."""

    def __init__(self, folder: Path, one_by_one: bool, err: Console) -> None:
        self.folder, self.one_by_one, self.err = folder, one_by_one, err
        self.tried: int | None = None
        """how many trainings were in Slurm's hands when the site had no room for more"""

    def submit(self, stand: Stand) -> bool:
        """Whether more was submitted now: where less of the study is in Slurm's hands than when there was no room."""
        there = sum(why.startswith((WAITS, GOING)) for why in stand.absent.values())
        if stand.silent or not kept.read(self.folder).left or (self.tried is not None and there >= self.tried):
            return False
        try:
            with records.held(self.folder, keeping.BUSY):
                done = submit_more(self.folder, [*stand.alive, *stand.report], self.one_by_one)
        except ScalelabError:  # the report's job is at work, or Slurm does not answer: soon again
            return False
        self.tried = there + done.taken
        if done.taken:
            tell_more(self.folder, done, self.err)
        return bool(done.taken)
