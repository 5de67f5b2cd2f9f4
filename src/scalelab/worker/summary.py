"""The end of a run: what each rank knows is gathered, and the record's last figures are set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import torch

from scalelab.comm.instruments import METHOD as COMMUNICATION_METHOD
from scalelab.measure import flops, memory, resources, tensors
from scalelab.measure.pacing import short, timed_steps
from scalelab.measure.statistics import absent, blocks, difference, figure
from scalelab.record.export import steps_parquet
from scalelab.record.schema import Communication, Figure, Memory, Tensors
from scalelab.worker import timeline, waiting
from scalelab.worker.job import Job
from scalelab.worker.journal import Journal
from scalelab.worker.loop import Probed
from scalelab.worker.meter import gather
from scalelab.worker.probe import Readings
from scalelab.worker.sampling import summarise

IMPOSSIBLE = "more than a whole step, which cannot be: the probes met other load than the training; measure on a quiet machine"
CATEGORIES = ("parameters", "gradients", "optimizer")

METHOD = {
    "images_per_second": "images of a block of 10 steps / its time, after the warm-up steps; "
    "the interval is a bootstrap over the blocks",
    "step_seconds": "perf_counter_ns around whole steps (fetch, forward, backward, optimizer), device synchronised; the slowest rank's",
    "data_wait_seconds": "from the end of a step to the next batch lying on the device, augmented; the slowest rank's",
    "data_wait_share": "data wait / step time, over the same blocks",
    "compute_seconds": "step time - exposed communication - data wait",
    "losses": "mean over all samples of the global batch, before the step",
    **COMMUNICATION_METHOD,
}


NOT_PROBED: tuple[tuple[Callable[[Job], bool], str], ...] = (
    (lambda job: job.world.size == 1, "one worker: nothing is sent"),
    (lambda job: job.spec.probe_steps == 0, "not probed: --probe-steps 0"),
    (lambda job: job.spec.compile, "not probed: a compiled model does not run compiled under the instruments"),
    (lambda job: True, "not probed: the strategy uses a collective that the instruments do not know; its log names it"),
)
"""why there are no readings: the first that holds"""


@dataclass(frozen=True)
class RankFacts:
    """Over all ranks: peak and baseline bytes, the categories, and how far replicas have drifted apart."""

    peaks: list[int]
    baselines: list[int]
    categories: dict[str, list[int]]
    tensors: dict[str, list[int]]
    """by category at the peak of a probe step; empty when none was probed"""
    drift: float


def of_rank(job: Job, probed: Probed) -> RankFacts:
    """Gather what each rank knows. A collective."""
    held = job.strategy.memory()
    checksum = sum(float(v.double().abs().sum()) for v in job.strategy.replicated())
    known = dict.fromkeys(tensors.KNOWN, -1) if probed.tensors is None else probed.tensors
    numbers = [probed.peak or memory.peak(job.world.device) or -1, job.baseline, *(held[c] for c in CATEGORIES), *known.values()]
    table = gather(torch.tensor([*numbers, checksum], dtype=torch.float64, device=job.world.device), job.world)
    columns = [[int(v) for v in column] for column in table[:, :-1].T.tolist()]
    split = 2 + len(CATEGORIES)
    at_peak = {} if probed.tensors is None else dict(zip(known, columns[split:], strict=True))
    sums = table[:, -1].view(job.world.replicas, job.world.stages)  # replicas hold the same, stages do not
    drift = float(((sums - sums[0]).abs() / sums[0].abs().clamp_min(1e-300)).max())
    return RankFacts(columns[0], columns[1], dict(zip(CATEGORIES, columns[2:split], strict=True)), at_peak, drift)


def conclude(journal: Journal, job: Job, facts: RankFacts, probed: Probed, seconds: float) -> None:
    """Set the last figures and close the run's files. The launcher sets the status."""
    record, readings = journal.record, probed.readings
    journal.save()  # the figures of all steps: what follows is said of them
    record.memory_bytes = _memory(facts)
    record.communication_seconds, record.bytes_sent = _communication(job, readings, record.step_seconds)
    record.compute_seconds = _compute(journal, job, readings)
    record.bubble = timeline.keep(journal.folder, job.strategy, probed.timeline)
    record.resources = summarise(journal.folder, record)
    measured = {"memory_bytes": memory.METHOD[job.world.device.type], "memory_bytes.tensors": tensors.METHOD}
    measured |= {"model.flops_per_image": flops.METHOD} | ({"resources": resources.METHOD} if record.resources else {})
    measured |= timeline.METHOD if record.bubble else {}
    record.method = {**METHOD, **measured, **job.strategy.method}
    record.seconds = (record.seconds or 0.0) + seconds
    if (slow := waiting.note(record.data_wait_share, job.dataset.streamed, job.derived)) is not None:
        journal.note(slow)
    if facts.drift > 0:
        journal.note(f"the ranks' parameters differ by {facts.drift:.1e} at the end: they should be equal")
    journal.save()
    journal.close()
    steps_parquet(journal.folder)


def _memory(facts: RankFacts) -> Memory:
    known = all(p >= 0 for p in facts.peaks)
    peak = figure(facts.peaks, "bytes") if known else absent("bytes", "this system does not tell a process's peak memory")
    return Memory(
        peak=peak,
        baseline=max(facts.baselines),
        per_worker=facts.peaks if known else [],
        tensors=_tensors(facts),
        **{c: max(facts.categories[c]) for c in CATEGORIES},
    )


def _tensors(facts: RankFacts) -> Tensors | None:
    """Of the worker with most; what is most at other moments, of any worker."""
    if not facts.tensors:
        return None
    totals = [sum(values) for values in zip(*(facts.tensors[name] for name in tensors.CATEGORIES), strict=True)]
    most = totals.index(max(totals))
    at_peak = {name: facts.tensors[name][most] for name in tensors.CATEGORIES}
    largest = {name: max(facts.tensors[name]) for name in (tensors.MOST_SAVED, tensors.AT_UPDATE)}
    return Tensors(per_worker=totals, **at_peak, **largest)


def _communication(job: Job, readings: Readings | None, step: Figure) -> tuple[Communication, Figure]:
    if readings is None:
        why = next(text for holds, text in NOT_PROBED if holds(job))
        none = absent("s", why)
        return Communication(total=none, exposed=none, hidden=none, waited=none, bare=none), absent("bytes", why)
    total, sent = figure(readings.total, "s"), Figure(unit="bytes", median=readings.bytes_sent, n=1)
    bare = figure(readings.bare, "s", readings.not_bare)
    if not readings.exposed:
        none = absent("s", job.strategy.not_silenced)
        return Communication(total=total, exposed=none, hidden=none, waited=none, bare=bare), sent
    exposed = figure(readings.exposed, "s")
    if exposed.ci95 is not None and exposed.ci95[0] <= 0 <= exposed.ci95[1]:
        exposed = figure(readings.exposed, "s", "not distinguishable from zero")
    elif (exposed.median or 0.0) > (step.median or math.inf):
        exposed = figure(readings.exposed, "s", IMPOSSIBLE)
    hidden = difference(readings.total, readings.exposed, "s")
    if hidden.ci95 is not None and hidden.ci95[0] <= 0 <= hidden.ci95[1]:
        hidden = msgspec.structs.replace(hidden, reason="not distinguishable from zero")
    waited = figure(readings.waited, "s", None if readings.waited else "the profiler does not see this engine's collectives")
    return Communication(total=total, exposed=exposed, hidden=hidden, waited=waited, bare=bare), sent


def _compute(journal: Journal, job: Job, readings: Readings | None) -> Figure:
    """Blocks of (step - data wait), less the exposed communication; the interval holds the doubt of both."""
    timed = timed_steps(journal.record, journal.steps)
    if readings is not None:  # the probes were of this attempt's first batch
        timed = [s for s in timed if s.batch in journal.bytes_sent]
    if not timed:
        return (
            journal.record.compute_seconds
            if journal.record.compute_seconds.median is not None
            else absent("s", short(journal.record))
        )
    values = blocks([s.seconds - s.data_seconds for s in timed])
    if readings is None:
        return figure(values, "s")
    if not readings.exposed:
        return absent("s", job.strategy.not_silenced)
    found = difference(values, readings.exposed, "s")
    return (
        found
        if (found.median or 0.0) > 0
        else absent("s", "the exposed communication was not measured well enough: use more --probe-steps")
    )
