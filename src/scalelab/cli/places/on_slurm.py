"""``scalelab train --slurm``: the training becomes a job of Slurm."""

from __future__ import annotations

import importlib.util
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from scalelab.cli.numbers import whole
from scalelab.cli.places.hosts import MEANT
from scalelab.cli.places.slurm_kept import how_to_look
from scalelab.cli.places.slurm_wait import follow
from scalelab.cli.summary import summarise, tell_failure
from scalelab.cli.terminal import console
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.launcher import Prepared
from scalelab.launch.pool import Pool
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm.job import ATTEMPTS
from scalelab.launch.slurm.queued import Asked, enqueue, unbegun
from scalelab.launch.slurm.request import Request
from scalelab.launch.slurm.submit import command
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from scalelab.spec import Spec
from scalelab.studies.slurm.login import Login

STOP_SECONDS = 120
"""before the time limit: for the steps until all ranks agree, and for the checkpoint"""
FLAGS: dict[str, tuple[str, str]] = {
    "nodes": ("N", "hosts (default: as many as --workers need)"),
    "workers_per_node": ("N", "workers, Slurm's tasks, on each (default 1)"),
    "gpus_per_node": ("N", "GPUs of each (default none)"),
    "cpus_per_task": ("N", "CPUs, and threads, of each worker (default 1)"),
    "partition": ("NAME", "where"),
    "time": ("TIME", "the longest that a job may take, as sbatch has it: minutes, or 1-12:00:00"),
    "account": ("NAME", "who pays"),
    "stop_seconds": ("N", f"before the time limit it saves a checkpoint and requeues itself (default {STOP_SECONDS}; 0: not)"),
    "attempts": ("N", f"at most, that end at the time limit (default {ATTEMPTS})"),
}
"""flags that ask for something, each with its value's name and its help"""
NUMBERS = {
    "nodes": 1,
    "workers_per_node": 1,
    "gpus_per_node": 0,
    "cpus_per_task": 1,
    "stop_seconds": 0,
    "attempts": 1,
}
"""those that are whole numbers, with the least that is allowed"""
SWITCHES = ("slurm_arg", "wait", "check_in_job")


def add_slurm(parser: ArgumentParser) -> None:
    """The flags of a training that becomes a job."""
    group = parser.add_argument_group("as a Slurm job")
    group.add_argument("--slurm", action="store_true", help="write a batch script beside the record, and submit it")
    for name, (metavar, text) in FLAGS.items():
        group.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=text)
    group.add_argument(
        "--slurm-arg", metavar="OPTION", action="append", help="any option of sbatch (repeatable): --slurm-arg=--qos=high"
    )
    group.add_argument("--wait", action="store_true", help="follow the job to its end; Ctrl-C leaves it running")
    group.add_argument(
        "--check-in-job", action="store_true", help="check the spec in the job, as without torch here: the data are there only"
    )


def wanted(parsed: Namespace) -> bool:
    """Whether the training is to be a job. Raises ScalelabError for flags that mean something only then."""
    if parsed.slurm:
        for other in ("on", "hosts", *MEANT):
            if getattr(parsed, other, None):
                raise ScalelabError(f"--{other.replace('_', '-')}: Slurm chooses the hosts; leave it or --slurm out")
        return True
    given = next((name for name in (*FLAGS, *SWITCHES) if getattr(parsed, name)), None)
    if given:
        raise ScalelabError(f"--{given.replace('_', '-')}: means something with --slurm only")
    return False


def as_before(parsed: Namespace, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` of a run that goes on, on as many workers as it had where nothing says otherwise. Raises ScalelabError."""
    if not values.get("resume") or values.get("workers") is not None or parsed.nodes or parsed.workers_per_node:
        return values
    folder = records.find([str(values["resume"])], Path(str(values.get("out", "runs"))))[0]
    record = records.load(folder)
    if record.environment.hosts:
        parsed.nodes = str(len(record.environment.hosts))
    return {**values, "workers": record.workers}


def request_of(parsed: Namespace, values: dict[str, Any]) -> Request:
    """What the flags ask for. ``values`` are the spec's; with no ``workers`` there, the job's tasks say them. Raises ScalelabError."""
    numbers = {name: _number(parsed, name, least) for name, least in NUMBERS.items()}
    workers = whole("--workers", values["workers"]) if values.get("workers") is not None else None
    nodes, each = numbers["nodes"], numbers["workers_per_node"]
    if workers is not None and nodes and not each:
        each = -(-workers // nodes)
    each = each or 1
    nodes = nodes or -(-(workers or 1) // each)
    if workers is not None and nodes * each != workers:
        near = f"{nodes * each - each} or {nodes * each}" if workers < nodes * each and nodes > 1 else str(nodes * each)
        raise ScalelabError(
            f"--workers {workers}: {nodes} nodes with {each} workers each are {nodes * each}; use {near}, or leave it out"
        )
    stop = numbers["stop_seconds"]
    return Request(
        nodes, each, numbers["cpus_per_task"] or _threads(values), numbers["gpus_per_node"] or 0, parsed.partition, parsed.time,
        parsed.account, tuple(parsed.slurm_arg or ()), stop_seconds=STOP_SECONDS if stop is None else stop,
    )  # fmt: skip


def _threads(values: dict[str, Any]) -> int:
    return whole("--threads-per-worker", values.get("threads_per_worker") or 1)


def _number(parsed: Namespace, name: str, least: int) -> int | None:
    given = getattr(parsed, name)
    return None if given is None else whole(f"--{name.replace('_', '-')}", given, least)


def placed(spec: Spec, request: Request) -> tuple[Spec, Request]:
    """Both, as one: threads for the CPUs of a task, the job named as the run. Raises ScalelabError."""
    if spec.workers != request.workers:  # of a run that goes on
        raise ScalelabError(
            f"--workers {spec.workers}, and {request.nodes} x {request.workers_per_node} tasks: say --nodes and --workers-per-node so that "
            "they are equal"
        )
    threads = spec.threads_per_worker or request.cpus_per_task
    name = spec.name or f"{spec.model}-{spec.strategy}"
    return msgspec.structs.replace(spec, threads_per_worker=threads), replace(request, name=name)


def to_check(spec: Spec) -> Spec:
    """The spec as this machine can check it: GPUs are the nodes', and a run that was cancelled in the queue has no checkpoint."""
    device = "cpu" if spec.device == "cuda" else spec.device
    resume = None if spec.resume and unbegun(Path(spec.resume)) else spec.resume
    return msgspec.structs.replace(spec, device=device, resume=resume)


def checked(spec: Spec, request: Request) -> Prepared:
    """The spec, checked on this machine. Raises ScalelabError. GPUs, which a login node lacks, are the job's to find."""
    asked = to_check(spec)
    with Pool() as pool:
        pool.warm()
        login = Login(pool, request.workers_per_node, request.cpus_per_task, request.gpus_per_node)
        return replace(training.prepare(login, asked), spec=spec)


def train(parsed: Namespace, spec: Spec, request: Request, debug: bool) -> int:
    """Submit it, and follow it where that is asked for; the exit status. Raises ScalelabError."""
    err = console(to_stderr=True)
    spec, request = placed(spec, request)
    here = importlib.util.find_spec("torch") is not None and not parsed.check_in_job
    asked = Asked(spec, request, _number(parsed, "attempts", 1) or ATTEMPTS, checked(spec, request) if here else None)
    asked.check()
    if parsed.dry_run:
        show(console(), asked, parsed.json)
        return 0
    folder, job = enqueue(asked, [sys.executable, "-m", "scalelab", *sys.argv[1:]])
    err.print(f"job {job}: {folder}\nits output: {places.output(folder)}", markup=False, soft_wrap=True)
    if not parsed.wait:
        if parsed.json:
            told = {"run": str(folder), "job": job, "script": str(places.script(folder)), "output": str(places.output(folder))}
            print(msgspec.json.encode(told).decode())
        else:
            err.print(how_to_look("run", folder, job), markup=False, soft_wrap=True)
        return 0
    return ended(parsed, folder, follow(err, folder, job), debug)


def ended(parsed: Namespace, folder: Path, record: TrainRecord, debug: bool) -> int:
    """Show what became of it; the exit status."""
    if parsed.json:
        print(msgspec.json.encode(msgspec.structs.replace(record, run=str(folder))).decode())
    else:
        summarise(console(), record, folder)
    if record.failure is not None:
        tell_failure(console(to_stderr=True), record, folder, debug)
    return 0 if record.status == "completed" else 1


def show(out: Console, asked: Asked, as_json: bool = False) -> None:
    """What ``--dry-run`` prints: the script, and how it would be submitted. RUN is the folder that a run will have."""
    folder = (Path(asked.spec.resume) if asked.spec.resume else Path(asked.spec.out) / "RUN").absolute()
    if as_json:
        print(msgspec.json.encode({"script": asked.script(folder).text(), "argv": command(places.script(folder))}).decode())
        return
    out.print(asked.script(folder).text(), markup=False, highlight=False, soft_wrap=True, end="")
    out.print("# " + " ".join(command(places.script(folder))), markup=False, highlight=False, soft_wrap=True)
