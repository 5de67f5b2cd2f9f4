"""How much of what its hosts can do a training gets out of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from scalelab.errors import ScalelabError
from scalelab.launch.ceiling import Occupied
from scalelab.launch.launcher import Launcher, Prepared
from scalelab.record.schema import Ceiling, Figure, Host, TrainRecord
from scalelab.spec import Spec


def measured(
    launcher: Launcher, rows: Iterable[Prepared], known: Mapping[str, Ceiling], again: bool = False
) -> dict[str, Ceiling]:
    """The ceiling of each host for each way of occupying it; one that can't be measured is left out, and its figures say so.

    ``again``: once more those that were measured on a busy host; of both the better one.
    """
    found = dict(known)
    if again and not any(map(doubtful, known.values())):
        return found
    with contextlib.suppress(ScalelabError):  # a host that is gone is its training's failure, not the study's
        wanted = {one.key: one for row in rows for one in launcher.part(row.hosts).occupied(row.spec, row.derived)}
        missing = [one for key, one in wanted.items() if key not in known or (again and doubtful(known[key]))]
        for one, now in launcher.ceilings(missing).items():
            found[one.key] = better(found[one.key], now) if one.key in found else now
    return found


def of(row: Prepared, record: TrainRecord, known: Mapping[str, Ceiling]) -> list[Ceiling]:
    """Those of a training's hosts, as far as they were measured."""
    spec = row.spec
    here = Occupied(spec.workers, row.derived.threads, spec.device, spec.precision)
    if here.key in known:  # one that was measured on this machine has no host's name
        return [known[here.key]]
    there = (
        Occupied(host.workers, _threads(spec, host), spec.device, spec.precision, host.name) for host in record.environment.hosts
    )
    return [known[one.key] for one in there if one.key in known]


def _threads(spec: Spec, host: Host) -> int:
    """Of each of its workers on a host, as they find it themselves."""
    return spec.threads_per_worker or max(1, host.cores // max(1, host.workers))


def achieved(record: TrainRecord, ceilings: Sequence[Ceiling]) -> Figure:
    """Share of the ceiling: images/s x FLOPs per image / the sum over the hosts of (its workers x the ceiling of one of them).

    The ceiling of a worker is that of one of so many that compute at once on its host. The model's FLOPs are counted, not what was done:
    recomputed activations are none of them (the "model FLOPs utilization" of Chowdhery et al. 2022, PaLM, with a measured ceiling in
    place of a data sheet's peak). The interval is the throughput's. Absent where a ceiling was measured on a busy machine: it is too low
    then, by a factor that differs from ceiling to ceiling.
    """

    def absent(reason: str) -> Figure:
        return Figure(unit="ratio", reason=reason)

    rate = record.images_per_second
    if rate.median is None:
        return absent(rate.reason or "no throughput was measured")
    flops = record.model.flops_per_image if record.model is not None else None
    if flops is None or flops.median is None:
        return absent((flops and flops.reason) or "the model's FLOPs were not counted")
    if why := _unusable(record, ceilings):
        return absent(why)
    unit = flops.median / sum(one.workers * (one.flops_per_second.median or 0.0) for one in ceilings)
    share = rate.median * unit
    return Figure(
        unit="ratio", median=share, n=rate.n, mad=None if rate.mad is None else rate.mad * unit,
        ci95=None if rate.ci95 is None else (rate.ci95[0] * unit, rate.ci95[1] * unit),
        reason="above the ceiling, which cannot be: it was measured while the machine was busy" if share > 1 else None,
    )  # fmt: skip


def _unusable(record: TrainRecord, ceilings: Sequence[Ceiling]) -> str | None:
    """Why nothing can be told of a training by these ceilings; None where it can."""
    hosts = [host.name for host in record.environment.hosts]
    several = len(hosts) > 1
    if not ceilings:
        return "the machine's ceiling was not measured"
    missing = [name for name in hosts if name not in {one.host for one in ceilings}] if several else []
    if missing:
        return f"{missing[0]}'s ceiling was not measured"
    for one in ceilings:
        whose = f"{one.host}'s" if several else "the"
        if one.flops_per_second.median is None:
            return one.flops_per_second.reason or f"{whose} ceiling was not measured"
        if one.flops_per_second.reason is not None:
            return f"{whose} ceiling was {one.flops_per_second.reason}"
    workers, threads = sum(one.workers for one in ceilings), ceilings[0].threads
    if (workers, threads) != (record.workers, record.derived.threads):
        return f"the ceiling is that of {workers} workers x {threads} threads, this run had {record.workers} x {record.derived.threads}"
    return None


def doubtful(ceiling: Ceiling) -> bool:
    """Whether a part of it was measured on a busy machine, or not at all: worth another try."""
    return ceiling.flops_per_second.reason is not None or ceiling.copy_bytes_per_second.reason is not None


def better(a: Ceiling, b: Ceiling) -> Ceiling:
    """Of two measurements of one ceiling, for each figure the one on a quiet machine, else the higher."""

    def rank(figure: Figure) -> tuple[bool, float]:
        return figure.reason is None, figure.median or 0.0

    flops = max(a, b, key=lambda one: rank(one.flops_per_second))
    copies = max(a, b, key=lambda one: rank(one.copy_bytes_per_second))
    return msgspec.structs.replace(flops, copy_bytes_per_second=copies.copy_bytes_per_second)
