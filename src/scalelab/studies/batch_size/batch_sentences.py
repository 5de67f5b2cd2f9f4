"""What the figures of batch-size say, in sentences: the answer, the bend and what explains it."""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.measure.line import Line
from scalelab.measure.statistics import differs
from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.record.study import Card, Row
from scalelab.studies.batch_size.batch_figures import (
    NO_EPOCH,
    activations,
    activations_over_cache,
    as_good,
    batch_of,
    bend,
    compared,
    epoch_data,
    epoch_seconds,
    off_the_line,
    pooled_epochs,
    rate,
    share,
)
from scalelab.studies.figures import READ, over_runs, pooled, told
from scalelab.studies.scaling.scaling import card, quoted
from scalelab.studies.study import Result

FITS = 0.1
"""a line that is off by no more than this share at every batch describes the steps"""


def answer(done: Sequence[Result]) -> str:
    """The batch to take, and why."""
    found = bend(done)
    if found is None:
        return "Nothing can be told: no batch has a throughput."
    at, best = found
    reached, most = over_runs(at, rate), over_runs(best, rate)
    held = pooled(at, READ["peak_memory"])
    memory = f" and {text.size(held.median)} of memory" if held.median is not None else ""
    if at is best:
        return told(f"Batch {batch_of(at)}: {quoted(reached, text.rate)} images/s{memory}; {_alone(done, at)}.", *done)
    sure = as_good(at, best)
    said = (
        f"Batch {batch_of(at)} {'is' if sure else 'may be'} enough: with {quoted(reached, text.rate)} images/s{memory} it is within 5 % of "
        f"the best, {quoted(most, text.rate)} images/s at batch {batch_of(best)}{'' if sure else ', which the intervals do not show'}."
    )
    return told(said, *done)


def _alone(done: Sequence[Result], best: Result) -> str:
    """What is known of the other batches where none smaller has a throughput as good as the best."""
    smaller = [one for one in done if batch_of(one) < batch_of(best)]
    if len(done) == 1:
        return "no other batch was trained"
    if not smaller:
        return "it is the smallest that was tried, and no larger one was faster"
    sure = all(as_good(one, best) is False for one in smaller)
    said = (
        "no smaller batch is within 5 % of it" if sure else "that no smaller batch is within 5 % of it, the intervals do not show"
    )
    largest = batch_of(best) == max(batch_of(one) for one in done)
    return said + ("; it is the largest that was tried, so a larger one may do better" if largest else "")


def cards(done: Sequence[Result]) -> list[Card]:
    """The batch to take, with its throughput and memory."""
    found = bend(done)
    if found is None:
        return []
    at, best = found
    sure = len(done) > 1 and as_good(at, best) and all(as_good(o, best) is False for o in done if batch_of(o) < batch_of(at))
    label, how = ("Take batch", "") if sure else ("Batch", " by the medians; the intervals do not show it")
    only = "the only one that was trained"
    sub = f"the smallest within 5 % of the best throughput{how}" if len(done) > 1 else only
    return [
        Card(label=label, value=f"{batch_of(at):,}", sub=sub),
        *card("Throughput", over_runs(at, rate), text.rate, "images/s"),
        *card("Memory", pooled(at, READ["peak_memory"]), text.size, "peak of the process"),
        *(card("Of the ceiling", reached, text.percent, "FLOPs achieved") if possible(reached := share(at)) else []),
    ]


def sentences(done: Sequence[Result], rows: Sequence[Row], fitted: Line) -> list[str]:
    """How it bends and why; where the doubling ended."""
    found = [_rise(done), told(_cost(done, fitted), *done), _ceiling(done), _caches(done), _fall(done), _data(done)]
    ends = [f"{one.label} was not trained: {one.reason}." for one in rows if one.status in ("refused", "failed") and one.reason]
    return [one for one in [*found, *ends[:1]] if one]


def _rise(done: Sequence[Result]) -> str:
    """From the smallest batch to the bend."""
    found = bend(done)
    if found is None or found[0] is done[0]:
        return ""
    at, ratio = found[0], compared(found[0], done[0])
    if ratio.median is None:
        return ""
    claim = "" if differs(ratio) else ", which the intervals do not tell from no gain"
    said = (
        f"From batch {batch_of(done[0])} to {batch_of(at)} throughput goes to {quoted(ratio, text.times)} of what it was{claim}."
    )
    return told(said, at, done[0])


def _cost(done: Sequence[Result], fitted: Line) -> str:
    a, b, off = fitted.a, fitted.b, fitted.off
    if a.median is None or b.median is None or off.median is None:
        return f"What a step and what an image costs can't be told apart: {a.reason}."
    line_is = f"a step costs {text.seconds(a.median)} and each image {text.seconds(b.median)}"
    if off.median > FITS:
        why = (
            "an image does not cost the same in all batches"
            if off_the_line(done, fitted)
            else "the steps' intervals leave room for one"
        )
        return (
            f"No one line is seen in the steps: the best, by which {line_is}, is off by up to {text.percent(off.median)}; {why}."
        )
    if fitted.half.median is None or (a.ci95 is not None and a.ci95[0] <= 0):
        return f"Overhead does not make the bend: {line_is}, and the overhead is not distinguishable from nothing."
    half, small = (text.number(times * fitted.half.median, 2) for times in (1, 19))
    return (
        f"A{line_is[1:]} (the line is off by at most {text.percent(off.median)}): half of a step of {half} images is overhead, and a "
        f"twentieth from {small} images on."
    )


def _ceiling(done: Sequence[Result]) -> str:
    found = bend(done)
    reached = share(found[1]) if found else None
    if found is None or reached is None or not possible(reached):
        return ""
    return f"At its best, batch {batch_of(found[1])}, training does {quoted(reached, text.percent)} of what this machine computes at most."


def possible(share: Figure) -> bool:
    """Whether something can be said of a share of the ceiling: it is there, and no more than the whole."""
    return share.median is not None and share.median <= 1


def _caches(done: Sequence[Result]) -> str:
    """Where the activations of a step leave the caches."""
    known = [(one, value) for one in done if (value := pooled(one, activations_over_cache).median) is not None]
    beyond = next((one for one, value in known if value > 1), None)
    if not known:
        return ""
    size = max(host.cache_bytes for host in known[0][0].completed[0].record.environment.hosts)
    if beyond is None:
        return f"The activations of every batch are smaller than the largest cache ({text.size(size)})."
    held = pooled(beyond, activations).median
    assert held is not None
    if beyond is known[0][0]:
        return (
            f"From the smallest batch on activations ({text.size(held)}) are larger than the largest cache ({text.size(size)})."
        )
    return (
        f"From batch {batch_of(beyond)} on activations ({text.size(held)}) are larger than the largest cache ({text.size(size)})."
    )


def _fall(done: Sequence[Result]) -> str:
    """The largest batch against the best, where it is slower."""
    found = bend(done)
    if found is None or found[1] is done[-1]:
        return ""
    ratio = compared(done[-1], found[1])
    if ratio.median is None:
        return ""
    last, best = done[-1], found[1]
    if not differs(ratio):
        said = f"That batch {batch_of(last)} is slower than {batch_of(best)} was not shown: {quoted(ratio, text.times)}."
    else:
        said = f"Batch {batch_of(last)} has {quoted(ratio, text.times)} of the throughput of {batch_of(best)}: larger is slower there."
    return told(said, last, best)


def _data(done: Sequence[Result]) -> str:
    """The largest share of an epoch that waits for data."""
    shares = [
        (wait.median / whole.median, one) for one in done
        if (wait := over_runs(one, epoch_data)).median is not None and (whole := over_runs(one, epoch_seconds)).median
    ]  # fmt: skip
    if not shares:
        return ""
    most, one = max(shares, key=lambda pair: pair[0])
    return f"Waiting for data is most at batch {batch_of(one)}: {text.percent(most)} of an epoch, by the medians."


def notes(done: Sequence[Result]) -> list[str]:
    """What to know of the times."""
    reasons = [pooled_epochs(one, epoch_seconds).reason or "" for one in done]
    short = any(NO_EPOCH in reason for reason in reasons)
    return (
        ["where no second epoch was trained whole, the time of an epoch is that of a step times an epoch's steps"]
        if short
        else []
    )
