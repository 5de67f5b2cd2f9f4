"""Speed against memory: what a worker has to hold, which batch fits, and which ways of training no other beats.

memory      what a worker must have room for in a step, of the worker with most: on a GPU the allocator's peak; on a CPU the tensors alive
            at a step's peak (a process's own peak is mostly the interpreter and its libraries, the same for all)
beats       A beats B where A is shown to be faster (the interval of the ratio of throughputs excludes 1) and holds no more than B, within
            ``ALIKE``; or holds less, and is shown to be slower by no more than ``LEVEL`` (the interval's lower end)
front       what no other beats (Pareto 1896): to hold less one must be slower there, to be faster one must hold more. Of those that no
            other is shown to beat, the ones that none beats by its median either; the rest are open: more steps or repeats would tell
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scalelab.errors import ScalelabError
from scalelab.measure.statistics import absent, differs
from scalelab.record.schema import Figure, TrainRecord
from scalelab.studies.figures import READ, pooled, versus
from scalelab.studies.study import Result

ALIKE, LEVEL = 0.01, 0.02
RATE = READ["images_per_second"]
KEPT_FREE = 0.1
"""of a worker's memory, for what no tensor counts: workspaces, fragments, the system"""
FEWEST_STEPS = 50
"""of an epoch: a batch that leaves fewer is not recommended, however much memory there is (what it costs: the study large-batch)"""
UNITS = {
    "": 1,
    "B": 1,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}


def memory(record: TrainRecord) -> Figure:
    """Bytes that the worker with most has to hold."""
    held = record.memory_bytes
    if record.environment.device == "cuda":
        peak = max(held.per_worker, default=None)
        return absent("bytes", held.peak.reason or "not measured") if peak is None else Figure(unit="bytes", median=peak, n=1)
    if held.tensors is None or not held.tensors.per_worker:
        return absent("bytes", "a step's tensors were not weighed: --probe-steps 0 and --compile leave that out")
    return Figure(unit="bytes", median=max(held.tensors.per_worker), n=1)


def beats(one: Result, other: Result) -> bool:
    """Whether ``one`` is shown to be better than ``other``, and no worse."""
    mine, its = (pooled(result, memory).median for result in (one, other))
    ratio = versus(one, other, RATE)
    if mine is None or its is None or ratio.median is None or ratio.ci95 is None:
        return False
    faster = differs(ratio) and ratio.median > 1
    return (faster and mine <= its * (1 + ALIKE)) or (mine < its * (1 - ALIKE) and ratio.ci95[0] >= 1 - LEVEL)


def compared(results: Sequence[Result]) -> list[Result]:
    """Those of which both figures are known."""
    return [r for r in results if pooled(r, memory).median is not None and pooled(r, RATE).median is not None]


def beaten_by(result: Result, others: Sequence[Result]) -> Result | None:
    """Who beats ``result``: the fastest of them; None: nobody is shown to."""
    found = [other for other in compared(others) if other is not result and beats(other, result)]
    return max(found, key=rate, default=None)


def unbeaten(results: Sequence[Result]) -> list[Result]:
    """Those that none of ``results`` is shown to beat, the least memory first."""
    known = compared(results)
    return sorted((r for r in known if beaten_by(r, known) is None), key=lambda r: (held(r), -rate(r)))


def front(results: Sequence[Result]) -> list[Result]:
    """The unbeaten ones that are faster than all which hold less, the least memory first."""
    found: list[Result] = []
    for one in unbeaten(results):
        if not found or rate(one) > rate(found[-1]):
            found.append(one)
    return found


def rate(result: Result) -> float:
    """Images/s; 0 where unknown."""
    return pooled(result, RATE).median or 0.0


def held(result: Result) -> float:
    """Bytes of ``memory``; 0 where unknown."""
    return pooled(result, memory).median or 0.0


def available(record: TrainRecord, given: int | None) -> tuple[float | None, str]:
    """(bytes that a worker may hold, where that is from): ``given``, or on a CPU its part of the host's memory, less what libraries take.

    None, and what to do, where it is not known.
    """
    if given is not None:
        return float(given), "--memory"
    hosts = record.environment.hosts
    if record.environment.device == "cuda":
        return None, "what a worker may hold is not known: say --memory, such as 80GiB"
    if not hosts or not hosts[0].memory_bytes:
        return None, "this host's memory is not known: say --memory, such as 8GiB"
    return hosts[0].memory_bytes * len(hosts) / record.workers - (
        record.memory_bytes.baseline or 0
    ), "its part of the host's memory"


def recommended(record: TrainRecord, given: int | None) -> Figure:
    """``largest``, but no more than leaves an epoch ``FEWEST_STEPS`` steps."""
    found = largest(record, given)
    if found.median is None or record.data is None:
        return found
    most = record.data.train / FEWEST_STEPS / record.derived.replicas / record.derived.accumulate
    capped = power_of_two(most) * record.derived.replicas * record.derived.accumulate
    return msgspec.structs.replace(found, median=min(found.median, float(capped)))


def largest(record: TrainRecord, given: int | None) -> Figure:
    """The global batch whose micro-batch is the largest power of two that fits.

    By the tensors at a step's peak: parameters, gradients and the optimizer's state stay, activations and all else grow with the
    micro-batch; ``KEPT_FREE`` is left free. The peak of a large model's small batch is the update's, where no activation lives any
    more: what grows is then at least what the forward pass saved.
    """
    tensors, derived = record.memory_bytes.tensors, record.derived
    room, source = available(record, given)
    if tensors is None:
        return absent("images", "a step's tensors were not weighed: --probe-steps 0 and --compile leave that out")
    if room is None:
        return absent("images", source)
    fixed = tensors.parameters + tensors.gradients + tensors.optimizer
    each = max(tensors.activations + tensors.other, tensors.most_activations) / derived.micro_batch
    if each == 0:
        return absent("images", "no activation was seen: what an image takes is not known")
    fits = ((1 - KEPT_FREE) * room - fixed) / each
    if fits < 1:
        return absent("images", f"not one image fits into {room / 2**20:,.0f} MiB ({source})")
    others = derived.accumulate * derived.replicas
    return Figure(unit="images", median=float(power_of_two(fits) * others), n=1)


def power_of_two(limit: float) -> int:
    """The largest that is not above ``limit``, at least 1."""
    found: int = 1 << max(0, int(limit).bit_length() - 1)
    return found


def size(flag: str, written: str) -> int:
    """Bytes of ``8GiB``, ``800 MB``. Raises ScalelabError."""
    text = written.strip().replace(" ", "").upper()
    digits = text.rstrip("KMGTIB")
    try:
        found = float(digits) * UNITS[text[len(digits) :]]
    except (ValueError, KeyError):
        raise ScalelabError(f"{flag} {written!r}: expected a size, such as 8GiB or 800MB") from None
    if not 0 < found < float("inf"):
        raise ScalelabError(f"{flag} {written!r}: expected more than nothing")
    return int(found)
