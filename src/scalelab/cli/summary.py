"""One run for people: its figures, and how it failed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scalelab.cli.terminal import console, shown
from scalelab.launch.slurm.settling import closed_where_over
from scalelab.launch.training import NOT_YET
from scalelab.record import folder as records
from scalelab.record import text
from scalelab.record.schema import Bubble, Figure, Resources, Tensors, TrainRecord


def readable(names: list[str], out: Path) -> dict[Path, TrainRecord]:
    """The records of ``names`` in ``out``, or of all runs there; what can't be read is told on stderr, unless it was named.

    One that says that it runs, in a job of Slurm that is over, is closed.

    Raises ScalelabError for a name that matches nothing, or names what can't be read.
    """
    found, faults = records.load_all(records.find(names, out), named=bool(names))
    for fault in faults:
        console(to_stderr=True).print(fault, markup=False)
    return closed_where_over(found)


def summarise(out: Console, record: TrainRecord, folder: Path) -> None:
    """The figures of a run, one a line, and where they are kept."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    communication = record.communication_seconds
    rows = [
        ("status", record.status),
        ("attempts", attempts(record)),
        ("throughput", throughput(record.images_per_second)),
        ("  arithmetic", arithmetic(record)),
        ("step", shown(record.step_seconds, text.seconds)),
        ("  compute", shown(record.compute_seconds, text.seconds)),
        ("  exposed communication", shown(communication.exposed, text.seconds)),
        ("  waiting for data", shown(record.data_wait_seconds, text.seconds)),
        ("  bubble of the pipeline", waits(record.bubble)),
        ("communication, total", shown(communication.total, text.seconds)),
        ("communication, hidden", shown(communication.hidden, text.seconds)),
        ("sent by each worker, a step", shown(record.bytes_sent, text.size)),
        ("peak memory of a worker", text.shown(record.memory_bytes.peak, text.size)),
        ("  of it tensors of a step", tensors(record.memory_bytes.tensors)),
        ("a worker used", used(record.resources)),
        ("loss", f"{record.losses[0]:.4f} → {record.losses[-1]:.4f}" if record.losses else text.ABSENT),
        ("accuracy", text.ABSENT if record.accuracy is None else text.percent(record.accuracy)),
        *(("note", note) for note in record.notes),
        ("trace", str(folder / records.TRACE) if (folder / records.TRACE).exists() else text.ABSENT),
        ("record", str(folder)),
    ]
    for name, value in rows:
        if NOT_YET not in value and value != text.ABSENT:
            table.add_row(name, escape(value))
    out.print(table)


def throughput(rate: Figure) -> str:
    """``1,280 images/s, n = 9 blocks of 10 steps``; a dash with its reason where it was not measured."""
    return shown(rate, text.rate) + (f" images/s, n = {text.counted(rate.n, 'block')} of 10 steps" if rate.n else "")


def attempts(record: TrainRecord) -> str:
    """``3: preempted after step 2860, time limit after step 8420``; a dash where the cluster ended none."""
    told = [
        one.why + (f" after step {one.stopped}" if one.stopped is not None else "")
        for one in record.attempts
        if one.why is not None
    ]
    return f"{sum(one.began for one in record.attempts)}: {', '.join(told)}" if told else text.ABSENT


def waits(found: Bubble | None) -> str:
    """``21.5 % [20.5–24.2 %], in theory 20.0 %``; a dash where the layers are not cut."""
    if found is None:
        return text.ABSENT
    ideal = "" if found.theory is None else f", in theory {text.percent(found.theory)}"
    return shown(found.measured, text.percent) + ideal


def arithmetic(record: TrainRecord) -> str:
    """``109 GFLOP/s: 60.3 MFLOP an image``; a dash where one of the two is not known."""
    rate, flops = record.images_per_second.median, record.model.flops_per_image.median if record.model else None
    if rate is None or flops is None:
        return text.ABSENT
    return f"{text.prefixed(rate * flops, 'FLOP/s')}: {text.prefixed(flops, 'FLOP')} an image, forward and backward"


def used(found: Resources | None) -> str:
    """``87 % of a core, 12.6 MB/s sent``: medians of what was sampled; a dash where nothing was."""
    if found is None:
        return text.ABSENT
    said: tuple[tuple[Figure, text.Show], ...] = (
        (found.cpu_percent, lambda value: f"{value:.0f} % of a core"),
        (found.gpu_percent, lambda value: f"{value:.0f} % of its GPU"),
        (found.gpu_memory_bytes, lambda value: f"{text.size(value)} of its memory"),
        (found.power_watts, lambda value: f"{value:.0f} W"),
        (found.sent_bytes_per_second, lambda value: f"{text.prefixed(value, 'B/s')} sent over the host's interface"),
    )
    return ", ".join(show(figure.median) for figure, show in said if figure.median is not None) or text.ABSENT


def tensors(found: Tensors | None) -> str:
    """``1.9 GiB: parameters 368 KiB, …``, what is largest first; a dash where it was not measured."""
    if found is None:
        return text.ABSENT
    parts = {name: getattr(found, name) for name in ("parameters", "gradients", "optimizer", "activations", "other")}
    listed = ", ".join(f"{name} {text.size(size)}" for name, size in sorted(parts.items(), key=lambda part: -part[1]))
    return f"{text.size(sum(parts.values()))}: {listed}"


def tell_failure(err: Console, record: TrainRecord, folder: Path | None, debug: bool) -> None:
    """The first failing rank's own words: its traceback where the failure was not foreseen, else one line. ``folder``: where it stays."""
    failure = record.failure
    assert failure is not None
    where = f"rank {failure.rank} on {failure.host}" if failure.rank is not None else "the run"
    if debug or not failure.expected:
        err.print(failure.traceback.rstrip(), markup=False, style="dim")
    log = f"; its log: {folder / 'logs' / f'rank-{failure.rank or 0}.txt'}" if folder else ""
    err.print(f"scalelab: {where} failed: {failure.error}{log}", markup=False, soft_wrap=True)
    if folder:
        tell_checkpoint(err, folder)


def tell_interrupted(err: Console, folder: Path | None) -> None:
    """Where a run that was interrupted stays, and how it goes on; nothing where it had not begun."""
    if folder is not None and folder.is_dir():
        err.print(f"the run up to here is kept: {folder}", markup=False, soft_wrap=True)
        tell_checkpoint(err, folder)


def tell_checkpoint(err: Console, folder: Path) -> None:
    """How a run goes on, where it has a checkpoint."""
    if (folder / "checkpoints" / "last.json").exists():
        err.print(f"its last checkpoint is kept: scalelab train --resume {folder}", markup=False, soft_wrap=True)
