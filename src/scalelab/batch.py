"""What the batch means: the numbers that follow from a spec, the same on every rank and in every record."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from scalelab.errors import ScalelabError
from scalelab.spec import Spec

BATCH = 64
"""the global batch where the spec says nothing"""
MEASURED = "measured"
"""``--shares measured``: in proportion to the speed of each worker, found out at the start"""


LR_FACTORS: dict[str, Callable[[float], float]] = {"none": lambda times: 1.0, "linear": lambda times: times, "sqrt": math.sqrt}
"""``--lr-scaling``: what a batch so many times ``--base-batch`` multiplies ``--lr`` by. linear: Goyal et al. 2017 (arXiv 1706.02677),
section 2.1; sqrt, which keeps the variance of a step: Krizhevsky 2014 (arXiv 1404.5997), Hoffer, Hubara & Soudry 2017 (NeurIPS)"""


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a ``--batch-schedule`` that begins with ``epoch`` (from 0); ``lr`` is its peak learning rate."""

    epoch: int
    batch: int
    micro_batch: int
    accumulate: int
    lr: float


class Derived(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that follow from a spec; printed at every start, kept in every record.

    ``data * shard * pipe == workers``; ``batch == micro_batch * accumulate * data * shard`` unless ``shares`` are uneven.
    """

    batch: int
    micro_batch: int
    accumulate: int
    data: int
    shard: int
    pipe: int
    threads: int
    data_threads: int = 0
    """of each worker, beside those: they decode streamed images"""
    oversubscribed: bool = False
    shares: tuple[int, ...] = ()
    """samples of a micro-batch for each replica, where ``--shares`` makes them uneven; ``micro_batch`` is then the largest"""
    lr: float | None = None
    """the peak learning rate, scaled as ``--lr-scaling`` says"""
    segments: tuple[Segment, ...] = ()
    """with ``--batch-schedule``, its parts; all else here is of the first"""

    @property
    def replicas(self) -> int:
        """Ranks that see different samples."""
        return self.data * self.shard

    @property
    def samples(self) -> tuple[int, ...]:
        """Samples of a micro-batch for each replica."""
        return self.shares or (self.micro_batch,) * self.replicas


def derive(spec: Spec, degrees: tuple[int, int, int], cores: int, local: int | None = None) -> Derived:
    """The numbers that follow from a spec on a host with ``cores`` usable cores and ``local`` of the workers. Raises ScalelabError.

    ``degrees`` is (data, shard, pipe). What does not divide is refused with the nearest values that do.
    """
    _check_scaling(spec)
    if spec.batch_schedule is None:
        plain = _constant(spec, degrees, cores, local or spec.workers)
        return msgspec.structs.replace(plain, lr=peak_lr(spec, plain.batch))
    return _scheduled(spec, spec.batch_schedule, degrees, cores, local or spec.workers)


def peak_lr(spec: Spec, batch: int) -> float:
    """``--lr``, scaled from ``--base-batch`` to ``batch`` as ``--lr-scaling`` says."""
    return spec.lr * LR_FACTORS[spec.lr_scaling](batch / (spec.base_batch or batch))


def _scheduled(spec: Spec, schedule: str, degrees: tuple[int, int, int], cores: int, local: int) -> Derived:
    """The numbers of the first part, and all parts. The micro-batch grows with the batch unless ``--micro-batch`` holds it."""
    changes, parts = _changes(schedule), []
    if spec.shares is not None:
        raise ScalelabError(f"--batch-schedule {schedule}: --shares divides batches of one size; leave one of the two out")
    if spec.batch_per_worker is not None or spec.batch not in (None, changes[0][1]):
        raise ScalelabError(
            f"--batch-schedule {schedule} says the batch from epoch 0 on: leave --batch and --batch-per-worker out"
        )
    for _, batch in changes:
        held = msgspec.structs.replace(spec, batch=batch)
        try:
            parts.append(_constant(held, degrees, cores, local))
        except ScalelabError as error:
            raise ScalelabError(f"--batch-schedule {schedule}: {error}") from None
        if parts[-1].micro_batch % spec.norm_slices:
            raise ScalelabError(
                f"--batch-schedule {schedule}: --norm-slices {spec.norm_slices} does not divide all its micro-batches"
            )
    segments = tuple(
        Segment(
            epoch=epoch, batch=batch, micro_batch=part.micro_batch, accumulate=part.accumulate,
            lr=peak_lr(spec, batch if spec.lr_follows_batch else changes[0][1]),
        ) for (epoch, batch), part in zip(changes, parts, strict=True)
    )  # fmt: skip
    return msgspec.structs.replace(parts[0], lr=segments[0].lr, segments=segments)


def _changes(schedule: str) -> list[tuple[int, int]]:
    """(epoch, global batch) of each part. Raises ScalelabError where the text is no schedule."""
    try:
        changes = [(int(epoch), int(batch)) for epoch, batch in (part.split(":") for part in schedule.split(","))]
    except ValueError:
        raise ScalelabError(
            f"--batch-schedule {schedule}: expected EPOCH:BATCH,EPOCH:BATCH, such as 0:128,10:512,20:2048"
        ) from None
    epochs = [epoch for epoch, _ in changes]
    if epochs[0] != 0:
        raise ScalelabError(f"--batch-schedule {schedule}: begins at epoch {epochs[0]}; say the first batch too, as 0:BATCH")
    if epochs != sorted(set(epochs)):
        raise ScalelabError(f"--batch-schedule {schedule}: its epochs must increase, as in 0:128,10:512,20:2048")
    if min(batch for _, batch in changes) < 1:
        raise ScalelabError(f"--batch-schedule {schedule}: a batch has at least one sample")
    return changes


def _check_scaling(spec: Spec) -> None:
    """Raises ScalelabError where flags that only mean something together are not together."""
    if spec.lr_scaling != "none" and spec.base_batch is None:
        raise ScalelabError(
            f"--lr-scaling {spec.lr_scaling}: from which batch on? Say with --base-batch N for which one --lr is meant"
        )
    if spec.lr_scaling == "none" and spec.base_batch is not None:
        raise ScalelabError(f"--base-batch {spec.base_batch}: nothing is scaled; say how with --lr-scaling linear or sqrt")
    if spec.lr_follows_batch and spec.batch_schedule is None:
        raise ScalelabError("--lr-follows-batch: the batch stays as it is; change it with --batch-schedule, such as 0:128,10:512")
    if spec.lr_follows_batch and spec.lr_scaling == "none":
        raise ScalelabError("--lr-follows-batch: by which rule? Say so with --lr-scaling linear or sqrt, and --base-batch")


def _constant(spec: Spec, degrees: tuple[int, int, int], cores: int, local: int) -> Derived:
    """The numbers where the batch stays what it is."""
    data, shard, pipe = degrees
    if data * shard * pipe != spec.workers:
        raise ScalelabError(f"data {data} x shard {shard} x pipe {pipe} is {data * shard * pipe}, not --workers {spec.workers}")
    batch = _batch(spec, data * shard)
    if spec.shares is not None and data * shard == 1 and spec.norm_slices == 1:
        raise ScalelabError(
            f"--shares {spec.shares}: --strategy {spec.strategy} has one replica here, which takes the whole batch; leave it out"
        )
    uneven = spec.shares is not None and data * shard > 1
    accumulate, shares = _uneven(spec, batch, data * shard) if uneven else (_accumulate(spec, batch, data * shard), ())
    micro_batch = max(shares, default=batch // (data * shard * accumulate))
    _check_slices(spec, micro_batch)
    threads = spec.threads_per_worker or max(1, cores // local)
    return Derived(
        batch=batch, micro_batch=micro_batch, accumulate=accumulate, data=data,
        shard=shard, pipe=pipe, threads=threads, shares=shares,
        oversubscribed=spec.device != "cuda" and threads * local > cores,
    )  # fmt: skip


def decoding(spec: Spec, derived: Derived, cores: int, streamed: bool, local: int | None = None) -> Derived:
    """With the threads that decode ``streamed`` images, which need cores too: as many as compute, unless the spec says otherwise."""
    if not streamed:
        return derived
    threads = spec.data_workers or derived.threads
    crowded = spec.device != "cuda" and (derived.threads + threads) * (local or spec.workers) > cores
    return msgspec.structs.replace(derived, data_threads=threads, oversubscribed=crowded)


def divided(total: int, weights: tuple[float, ...]) -> tuple[int, ...]:
    """``total`` samples in proportion to ``weights``, rounded, at least one each; ``total >= len(weights)``."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [max(1, int(value)) for value in exact]
    places = range(len(weights))
    while sum(counts) < total:
        counts[max(places, key=lambda i: exact[i] - counts[i])] += 1
    while sum(counts) > total:
        counts[max((i for i in places if counts[i] > 1), key=lambda i: counts[i] - exact[i])] -= 1
    return tuple(counts)


def norm_slices(spec: Spec, micro_batch: int) -> tuple[int, ...]:
    """Samples of each slice of a micro-batch that batch norm sees apart, where one process stands for several workers."""
    even = spec.shares is None or spec.shares == MEASURED
    return divided(micro_batch, (1.0,) * spec.norm_slices if even else _weights(spec.shares or ""))


def _check_slices(spec: Spec, micro_batch: int) -> None:
    """Raises ScalelabError for slices that batch norm can't see."""
    if spec.norm_slices > 1 and spec.batch_norm == "sync":
        raise ScalelabError(f"--norm-slices {spec.norm_slices}: synchronised batch norm sees no slices; use --batch-norm local")
    if spec.norm_slices > micro_batch:
        raise ScalelabError(
            f"--norm-slices {spec.norm_slices}: a micro-batch has {micro_batch} samples; use at most {micro_batch}"
        )


def _batch(spec: Spec, replicas: int) -> int:
    if spec.batch is not None and spec.batch_per_worker is not None:
        raise ScalelabError("--batch and --batch-per-worker say the same thing twice: give one (batch is over all workers)")
    return spec.batch_per_worker * replicas if spec.batch_per_worker is not None else spec.batch or BATCH


def _accumulate(spec: Spec, batch: int, replicas: int) -> int:
    """Micro-batches of a step, all of the same size."""
    accumulate, micro = spec.accumulate, spec.micro_batch
    if batch % replicas:
        raise ScalelabError(
            f"--batch {batch} does not divide over {replicas} workers; nearest: {_nearest_multiples(batch, replicas)}"
        )
    share = batch // replicas
    if micro is not None and accumulate is not None and micro * accumulate != share:
        raise ScalelabError(
            f"--micro-batch {micro} x --accumulate {accumulate} x {replicas} replicas is {micro * accumulate * replicas}, "
            f"not --batch {batch}; leave one of the two out"
        )
    if micro is not None:
        if share % micro:
            raise ScalelabError(
                f"--micro-batch {micro} does not divide the {share} samples of a worker; nearest: {_nearest_divisors(share, micro)}"
            )
        return share // micro
    if share % (accumulate or 1):
        raise ScalelabError(
            f"--accumulate {accumulate} does not divide the {share} samples of a worker; "
            f"nearest: {_nearest_divisors(share, accumulate or 1)}"
        )
    return accumulate or 1


def _uneven(spec: Spec, batch: int, replicas: int) -> tuple[int, tuple[int, ...]]:
    """(micro-batches of a step, samples of a micro-batch for each replica) under ``--shares``."""
    weights = (1.0,) * replicas if spec.shares == MEASURED else _weights(spec.shares or "")
    if len(weights) != replicas:
        raise ScalelabError(f"--shares {spec.shares}: has {len(weights)} shares for {replicas} replicas; give one each")
    if spec.micro_batch is not None:
        raise ScalelabError("--micro-batch is the same for all workers, --shares is not: give --accumulate instead")
    accumulate = spec.accumulate or 1
    if batch % accumulate:
        raise ScalelabError(
            f"--accumulate {accumulate} does not divide --batch {batch}; nearest: {_nearest_divisors(batch, accumulate)}"
        )
    if batch // accumulate < replicas:
        raise ScalelabError(
            f"--batch {batch} in {accumulate} micro-batches leaves less than one sample for each of {replicas} workers"
        )
    return accumulate, divided(batch // accumulate, weights)


def _weights(shares: str) -> tuple[float, ...]:
    try:
        weights = tuple(float(part) for part in shares.split(":"))
    except ValueError:
        weights = ()
    if not weights or not all(0 < weight < 1e9 for weight in weights):
        raise ScalelabError(f"--shares {shares}: expected a positive number for each replica, such as 3:1, or '{MEASURED}'")
    return weights


def _nearest_multiples(value: int, of: int) -> str:
    below = value // of * of
    return " or ".join(str(v) for v in (below, below + of) if v > 0)


def _nearest_divisors(of: int, value: int) -> str:
    divisors = [d for d in range(1, of + 1) if of % d == 0]
    below = [d for d in divisors if d < value][-1:]
    return " or ".join(str(v) for v in below + [d for d in divisors if d > value][:1])
