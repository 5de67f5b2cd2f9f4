"""One rank, from its start to its end. Started as ``python -m scalelab.worker SPEC.yaml`` or forked from a preloaded server.

The run's folder is the spec file's. torchrun's variables say which rank this is.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import msgspec
import torch

from scalelab import spec as specs
from scalelab import strategies
from scalelab.batch import Derived, derive
from scalelab.comm.world import World, join, leave
from scalelab.errors import RunError, ScalelabError
from scalelab.limits import local_workers
from scalelab.measure.environment import STARTED, usable_cores
from scalelab.record import folder as records
from scalelab.record import samples
from scalelab.record.schema import Failure, Host
from scalelab.spec import Spec
from scalelab.strategies.base import Strategy
from scalelab.worker import job, plan, profiling, stopping, summary
from scalelab.worker.allocator import keep_memory
from scalelab.worker.checkpoint import Progress
from scalelab.worker.handing import brought
from scalelab.worker.journal import Journal
from scalelab.worker.loop import train
from scalelab.worker.resuming import take_up
from scalelab.worker.sampling import sampling

OUT_OF_MEMORY = "out of memory"


def rank(spec_file: str) -> int:
    """Train as one rank; the exit status. What goes wrong is left in the run's folder for the launcher."""
    folder = Path(spec_file).parent
    faulthandler.register(signal.SIGUSR2, file=2)  # the launcher asks a rank that hangs where it stands
    try:
        spec = specs.load(Path(spec_file))
        derived = derive(spec, strategies.degrees(spec), usable_cores(), local_workers(spec.workers))
        run(spec, derived, folder)
    except Exception as error:
        told = advise(error)
        print(traceback.format_exc(), file=sys.stderr, flush=True)
        failure = Failure(
            error=told, host=socket.gethostname(), rank=int(os.environ.get("RANK", "0")), traceback=traceback.format_exc(),
            expected=isinstance(error, ScalelabError) or told.startswith(OUT_OF_MEMORY),
        )  # fmt: skip
        records.write_failure(folder, failure.rank or 0, failure)
        return error.exit_status if isinstance(error, ScalelabError) else 1
    return 0


def run(spec: Spec, derived: Derived, folder: Path) -> None:
    """Join the others, train, write the figures."""
    stop = stopping.listen()
    keep_memory()
    torch.set_num_threads(derived.threads)
    world = join(spec, derived)
    mine = job.build(spec, derived, world)
    start = take_up(folder, spec, mine.strategy, world)
    journal = Journal(folder) if world.first else None
    if journal is not None:
        open_journal(journal, mine, world, start)
    gc.collect()
    gc.freeze()  # what is here stays: the collector need not look at a million objects in the middle of a step
    began = time.perf_counter()
    with sampling(folder, world, spec.sample_seconds):
        probed = train(mine, folder, journal, start, stop)
    seconds = time.perf_counter() - began
    traced = profiling.finish(folder, world) if spec.profile else None
    if journal is not None and traced is not None:
        journal.note(profiling.note(spec, start.step, journal.steps[-1].step))
    if probed.stopped is None:
        brought(folder, samples.FOLDER, world)
        facts = summary.of_rank(mine, probed)
        if journal is not None:
            summary.conclude(journal, mine, facts, probed, seconds)
    elif journal is not None:
        break_off(journal, mine, probed.stopped, seconds)
    mine.strategy.close()
    leave()


def open_journal(journal: Journal, mine: job.Job, world: World, start: Progress) -> None:
    """Note in the record that training begins now, where, and how long the start took."""
    record = journal.record
    started = float(os.environ.get(STARTED, time.time()))
    notes = mine.strategy.notes()
    if mine.derived.shares:
        notes.append(f"uneven shares: {' + '.join(map(str, mine.derived.shares))} samples of each micro-batch, by replica")
    record.attempts[-1] = msgspec.structs.replace(
        record.attempts[-1], first_step=start.step, start_seconds=time.time() - started, notes=notes
    )
    device = "cuda + cpu" if world.mixed else world.device.type
    hosts = with_devices(record.environment.hosts, world.devices)
    record.environment = msgspec.structs.replace(record.environment, hosts=hosts, backend=world.backend, device=device)
    if world.mixed:
        notes.append("some workers have a GPU and others none: all communication goes through gloo and the hosts' memory")
    crowded = mine.derived.oversubscribed or record.derived.oversubscribed  # this host, or as the launcher knows another one
    record.derived = msgspec.structs.replace(mine.derived, oversubscribed=crowded)  # --shares measured are known only now
    for note in (*notes, *plan.notes(mine.plan)):
        journal.note(note)
    journal.open(start.step)


def with_devices(hosts: list[Host], devices: tuple[str, ...]) -> list[Host]:
    """The hosts with the GPUs that their ranks compute on, each kind once; ``devices`` by rank, the first host's ranks first."""
    found, at = [], 0
    for host in hosts:
        count = host.workers or len(devices)
        names = {name for name in devices[at : at + count] if name != "cpu"}
        found.append(msgspec.structs.replace(host, devices=sorted(names)))
        at += count
    return found


def break_off(journal: Journal, mine: job.Job, step: int, seconds: float) -> None:
    """Note in the record that the attempt was asked to stop, and did so after ``step``; its figures stay those until there."""
    record = journal.record
    record.attempts[-1] = msgspec.structs.replace(record.attempts[-1], stopped=step)
    record.seconds = (record.seconds or 0.0) + seconds
    if mine.plan.inside_epoch(step) and type(mine.strategy).unite is not Strategy.unite:
        journal.note(f"stopped after step {step}: there, inside an epoch, the workers were averaged once more")
    journal.save()
    journal.close()


def advise(error: Exception) -> str:
    """One line for the user: what happened, and what to do where that is known."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RunError):
        return text
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        word in text for word in ("can't allocate memory", "not enough memory", "bad_alloc")
    ):
        return f"{OUT_OF_MEMORY}: lower --micro-batch (the global batch stays with --accumulate), or spread it with zero3"
    return f"{type(error).__name__}: {text}" if not isinstance(error, ScalelabError) else text
