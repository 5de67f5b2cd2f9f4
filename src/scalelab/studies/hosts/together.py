"""What several hosts train together, against what each trains alone: figures, and the sentences that they allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scalelab.measure.statistics import absent, differs, quotient, repeated, resolution
from scalelab.record import text
from scalelab.record.schema import Figure, TrainRecord
from scalelab.studies import quiet
from scalelab.studies.figures import ONE, READ, once, over_runs, pooled, told, versus
from scalelab.studies.scaling.scaling import exposed_share, quoted
from scalelab.studies.study import Result

RATE = READ["images_per_second"]
FIRST, FURTHER, TOGETHER, BALANCED = "first", "further", "together", "balanced"
"""what a point is for, its factor ``role``"""
SHORT = "one training, with too few steps for an interval"


def of(results: Sequence[Result], role: str) -> list[Result]:
    """The points of a role."""
    return [one for one in results if one.point.factors["role"] == role]


def summed(figures: Sequence[Figure]) -> Figure:
    """The sum of independent figures; the distances to the ends of their intervals add in quadrature (Zou & Donner 2008).

    Absent where one of them is.
    """
    lacking = next((figure for figure in figures if figure.median is None), None)
    if lacking is not None or not figures:
        return absent(
            figures[0].unit if figures else "", lacking.reason or "nothing was measured" if lacking else "nothing to add"
        )
    value = sum(figure.median or 0.0 for figure in figures)
    n = min(figure.n for figure in figures)
    if any(figure.ci95 is None for figure in figures):
        return Figure(unit=figures[0].unit, median=value, n=n, reason="no interval: one of the figures has none")
    low = math.hypot(*((f.median or 0.0) - f.ci95[0] for f in figures if f.ci95))
    high = math.hypot(*(f.ci95[1] - (f.median or 0.0) for f in figures if f.ci95))
    return Figure(unit=figures[0].unit, median=value, n=n, ci95=(value - low, value + high))


def of_ideal(result: Result, alone: Sequence[Result]) -> Figure:
    """Throughput over the sum of what the hosts train alone: paired by repeat from two repeats on, else of the figures."""
    if len(result.point.hosts) == 1:
        return absent("ratio", "one host: it is a part of the sum")
    rates = [{run.repeat: RATE(run.record).median for run in one.completed} for one in alone]
    mine = {run.repeat: RATE(run.record).median for run in result.completed}
    pairs = [
        (rate, sum(its.get(repeat) or 0.0 for its in rates))
        for repeat, rate in mine.items()
        if rate is not None and all(its.get(repeat) for its in rates)
    ]
    if len(pairs) >= 2:
        return repeated([rate / ideal for rate, ideal in pairs], "ratio")
    found = quotient(pooled(result, RATE), summed([pooled(one, RATE) for one in alone]))
    if found.median is None:
        return found
    if found.reason:
        reason = SHORT if once(result, *alone) else found.reason
        return Figure(unit="ratio", median=found.median, n=found.n, reason=reason)
    return Figure(unit="ratio", median=found.median, n=found.n, ci95=found.ci95, reason=ONE)


def last_epoch(name: str) -> Callable[[TrainRecord], Figure]:
    """Accuracy, precision or recall on the test set after the last epoch."""

    def read(record: TrainRecord) -> Figure:
        value = getattr(record.epochs[-1], name) if record.epochs else None
        unit = "accuracy" if name == "accuracy" else "ratio"
        return absent(unit, "no epoch was evaluated") if value is None else Figure(unit=unit, median=value, n=1)

    return read


def answer(results: Sequence[Result]) -> str:
    """How much faster all are together than the first alone, in one sentence."""
    first, alone = of(results, FIRST)[0], [one for one in results if len(one.point.hosts) == 1]
    tried = [one for role in (TOGETHER, BALANCED) for one in of(results, role) if one.completed]
    known = [(one, ratio) for one in tried if (ratio := versus(one, first, RATE)).median is not None]
    if not known:
        return "Nothing can be told: either the first host alone or all hosts together have no throughput."
    best, ratio = max(known, key=lambda pair: pair[1].median or 0.0)
    ideal, base = of_ideal(best, alone), first.point.label
    how = ", with measured shares of the batch," if best.point.factors["role"] == BALANCED else ""
    if not differs(ratio):
        said = (
            f"{named(best)} together{how} were not shown to be faster or slower than {base} alone: {quoted(ratio, text.times)}."
        )
        return told(said, best, first)
    word = "train" if (ratio.median or 0.0) > 1 else "train only"
    arrives = f": {quoted(ideal, text.percent)} of what each trains alone, added up" if ideal.median is not None else ""
    said = f"{named(best)} together{how} {word} {quoted(ratio, text.times)} as many images a second as {base} alone{arrives}."
    return told(said, best, first)


def named(result: Result) -> str:
    """``h1 and h2``; of many their number."""
    hosts = result.point.hosts
    return text.listing(hosts) if len(hosts) <= 4 else f"The {len(hosts)} hosts"


def sentences(results: Sequence[Result]) -> list[str]:
    """What the figures allow to be said of balance, of the hosts' own speeds, of the network and of what was learnt."""
    found = [_balance(results), *_speeds(results), *_network(results), _learnt(results), *_busy(results)]
    return [one for one in found if one]


def _balance(results: Sequence[Result]) -> str:
    """Measured shares against equal ones."""
    even, balanced = of(results, TOGETHER), of(results, BALANCED)
    if not even or not balanced or not (even[0].completed and balanced[0].completed):
        return ""
    ratio = versus(balanced[0], even[0], RATE)
    if ratio.median is None:
        return ""
    claim = "no difference was shown" if not differs(ratio) else "they pay" if ratio.median > 1 else "equal ones are faster"
    said = (
        f"Shares of the batch in proportion to measured speed train {quoted(ratio, text.times)} what equal ones train: {claim}."
    )
    return told(said, balanced[0], even[0])


def _speeds(results: Sequence[Result]) -> list[str]:
    """Each further host alone against the first alone, where they differ."""
    first = of(results, FIRST)[0]
    found = []
    for one in of(results, FURTHER):
        ratio = versus(one, first, RATE)
        if ratio.median is not None:
            claim = "" if differs(ratio) else ", which is no shown difference"
            said = f"{one.point.label} alone trains {quoted(ratio, text.times)} what {first.point.label} alone trains{claim}."
            found.append(told(said, one, first))
    return found


def _network(results: Sequence[Result]) -> list[str]:
    """What of a step is spent on sending, together."""
    found = []
    for one in of(results, TOGETHER):
        share = over_runs(one, lambda run: exposed_share(run.record))
        if share.median is not None:
            claim = "" if share.ci95 is None or share.ci95[0] > 0 else ", not distinguishable from none"
            said = f"Communication adds {quoted(share, text.percent)} of a step to their training together{claim}."
            found.append(told(said, one))
    return found


def _learnt(results: Sequence[Result]) -> str:
    """Whether the accuracies differ by more than the test set can tell apart by chance."""
    known = [
        (one.point.label, figure.median, one.completed[0].record)
        for one in results
        if one.completed and (figure := pooled(one, last_epoch("accuracy"))).median is not None
    ]
    samples = min((record.data.test for _, _, record in known if record.data is not None), default=0)
    if len(known) < 2 or not samples:
        return ""
    low, high = min(value for _, value, _ in known), max(value for _, value, _ in known)
    if high - low <= resolution((low + high) / 2, samples, len(known)):
        ends = [text.percent(low), text.percent(high)]
        if ends[0] == ends[1]:
            return f"Every accuracy is {ends[0]}, of {samples:,} test images."
        return f"Accuracies of {ends[0]} to {ends[1]} can't be told apart with {samples:,} test images."
    best, worst = max(known, key=lambda one: one[1]), min(known, key=lambda one: one[1])
    return (
        f"The accuracy of {best[0]} ({text.percent(high)}) is above that of {worst[0]} ({text.percent(low)}) by more than {samples:,} test "
        "images leave to chance."
    )


def _busy(results: Sequence[Result]) -> list[str]:
    """Hosts on which another program took a worker's core while it was alone, where that can be said."""
    found = []
    for one in results:
        got = quiet.share(one) if len(one.point.hosts) == 1 and one.point.spec.workers == 1 else None
        if got is not None and got < quiet.WHOLE:
            found.append(
                f"{one.point.label} was busy: its one worker, which has nobody to wait for, got {text.whole_percent(got)} of its core's "
                "time, so none of this is what quiet hosts would show."
            )
    return found
