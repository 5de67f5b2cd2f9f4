"""Which strategy to take, in sentences made from the figures: the fastest that fits, what less memory costs, what accuracies can tell."""

from __future__ import annotations

from collections.abc import Sequence

from scalelab import strategies
from scalelab.measure.statistics import differs, resolution
from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.studies import quiet
from scalelab.studies.figures import of, pooled, told, versus
from scalelab.studies.scaling.scaling import BASE, SPREAD, exposed_share, over_base, oversubscribed, quoted
from scalelab.studies.strategies import front
from scalelab.studies.study import Result

NAMED = 4
"""at most, in a sentence"""
CLOSE = 0.1
"""of a throughput: two that the intervals can't tell apart are alike only where they were measured so near, or noise would decide"""


def answer(members: Sequence[Result], given: int | None) -> str:
    """The one to take, and the one to switch to where memory is short."""
    known = front.compared(members)
    if not known:
        why = next((r.refused for r in members if r.refused), "no training gave both a throughput and a step's memory")
        return f"Nothing can be recommended: {why.rstrip('.')}."
    fitting = [r for r in known if _fits(r, given)]
    alike = [r for r in fitting if exact(r)] or fitting
    if not fitting:
        least = min(known, key=front.held)
        return f"Nothing fits into {_room(least, given)}: {_name(least)} needs least, {_memory(least)} for each worker with this batch."
    taken, fastest = choose(alike)
    said = filter(None, [_take(members, taken, fastest), _other(fitting, taken), _switch(alike, taken)])
    return told(" ".join(said), *fitting)


def exact(result: Result) -> bool:
    """Whether it computes what one process does: local-sgd does not, with most settings."""
    spec = result.point.spec
    found = strategies.entry(spec.strategy)
    same = all(getattr(spec, name) == value for name, value in found.exact_as.items())
    return same and (not found.exact_for or spec.optimizer in found.exact_for)


def _other(fitting: Sequence[Result], taken: Result) -> str | None:
    """What is faster, and learns something else."""
    found = [r for r in fitting if not exact(r)]
    best = max(found, key=front.rate, default=None)
    if best is None or best is taken:
        return None
    ratio = versus(best, taken, front.RATE)
    if ratio.median is None or ratio.median <= 1 or not differs(ratio):
        return None
    return (
        f"{_name(best)} is {quoted(ratio, text.times)} as fast as that, but does not learn the same: the study convergence compares their "
        "ways to an accuracy."
    )


def choose(fitting: Sequence[Result]) -> tuple[Result, Result]:
    """(the one to take, the fastest): of those that are shown to be about as fast as the fastest, the one that holds least."""
    fastest = max(fitting, key=front.rate)
    level = [r for r in fitting if r is not fastest and _level(fastest, r)]
    smaller = [r for r in level if front.held(r) < front.held(fastest) * (1 - front.ALIKE)]
    return min(smaller, key=front.held, default=fastest), fastest


def _level(fastest: Result, other: Result) -> bool:
    """Whether the two are about as fast, and the intervals can't tell them apart; without intervals nothing is known."""
    ratio = versus(fastest, other, front.RATE)
    return ratio.median is not None and ratio.median <= 1 + CLOSE and ratio.ci95 is not None and not differs(ratio)


def _take(members: Sequence[Result], taken: Result, fastest: Result) -> str:
    base = of(members, role=BASE)
    assert base is not None, "every model has one"
    rate = f"{text.shown(pooled(taken, front.RATE), text.rate)} images/s"
    first = f"Take {_name(taken)}: {rate}, {_memory(taken)} for each worker"
    if taken is not base:
        speedup = over_base(taken, base)
        shown = "" if differs(speedup) else ", which is not shown to differ from it"
        first = f"{first}, {quoted(speedup, text.times)} the throughput of single{shown}"
    elif len([r for r in members if r.point.factors["role"] == SPREAD and r.completed]):
        first = f"{first}; nothing that is spread over workers is shown to be faster and as small"
    if taken is fastest:
        return f"{first}."
    more = front.held(fastest) / front.held(taken)
    return f"{first}. {_name(fastest)} is not shown to be faster, and holds {text.times(more)} as much."


def _switch(fitting: Sequence[Result], taken: Result) -> str | None:
    """What to do where a worker has less memory."""
    least = min(front.front(fitting), key=front.held, default=taken)
    if front.held(least) >= front.held(taken) * (1 - front.ALIKE):
        return None
    ratio = versus(least, taken, front.RATE)
    saved = 1 - front.held(least) / front.held(taken)
    return (
        f"Switch to {_name(least)} where a worker has less: it holds {_memory(least)} ({text.whole_percent(saved)} less) at "
        f"{quoted(ratio, text.times)} of that throughput."
    )


def sentences(members: Sequence[Result], model: str) -> list[str]:
    """The front, what memory buys along it, communication, accuracy, and what shares cores. ``model``: of several, which."""
    known = front.compared(members)
    base = of(members, role=BASE)
    found = [*_front(known), *_communication(members), *_accuracy(members), *(quiet.sentences(base) if base else [])]
    crowded = [r for r in members if oversubscribed(r)]
    if crowded:
        found.append(
            f"{_listed(crowded)}: more workers than cores, which take turns. Their throughput is no measure of what they could do."
        )
    return [f"{model}: {said}" for said in found] if model else found


def _front(known: Sequence[Result]) -> list[str]:
    best = front.front(known)
    if not best:
        return []
    steps = [f"{_name(r)} ({_memory(r)}, {text.shown(pooled(r, front.RATE), text.rate)} images/s)" for r in best]
    undecided = [r for r in front.unbeaten(known) if r not in best]
    beaten = len(known) - len(best) - len(undecided)
    rest = f"; {text.count(beaten)} other{' is' if beaten == 1 else 's are'} beaten" if beaten else ""
    unclear = f"; the intervals leave open where {_listed(undecided)} belong{'s' * (len(undecided) == 1)}" if undecided else ""
    found = [told(f"On the front of speed against memory: {text.listing(steps)}{rest}{unclear}.", *known)]
    least, fastest = best[0], max(best, key=front.rate)
    more = front.held(fastest) - front.held(least)
    ratio = versus(fastest, least, front.RATE)
    if fastest is not least and more > 0 and ratio.median is not None and differs(ratio):
        buys = f"What memory buys: {text.size(more)} more on each worker, from {_name(least)} to {_name(fastest)}, is worth "
        found.append(told(f"{buys}{quoted(ratio, text.times)} the throughput.", fastest, least))
    return found


def _communication(members: Sequence[Result]) -> list[str]:
    """Whom communication costs most, and least, where it was shown to cost anything."""
    shares = [(r, pooled(r, exposed_share)) for r in members]
    shown = sorted(((f.median, r, f) for r, f in shares if f.median is not None and _shown(f)), key=lambda one: one[0])
    if not shown:
        measured = [r for r, f in shares if f.median is not None]
        return [f"No exposed communication was shown for {_listed(measured)}."] if measured else []
    parts = [f"{_name(r)} most, {quoted(f, text.percent)} of a step" for _, r, f in shown[-1:]]
    parts += [f"{_name(r)} least of those where it shows, {quoted(f, text.percent)}" for _, r, f in shown[:1] if len(shown) > 1]
    return [told(f"Communication costs {', and '.join(parts)}.", *(r for _, r, _ in shown))]


def _shown(figure: Figure) -> bool:
    """Whether the share is above zero, and one that can be: more than a whole step is other load that the probes met."""
    return figure.median is not None and figure.median < 1 and figure.ci95 is not None and figure.ci95[0] > 0


def _accuracy(members: Sequence[Result]) -> list[str]:
    """Whether the accuracies are the same, as far as the test set can tell."""
    found = [
        (run.record.accuracy, r, run.record.data.test)
        for r in members
        for run in r.completed[:1]
        if run.record.accuracy is not None and run.record.data is not None
    ]
    if len(found) < 2:
        return []
    (low, worst, samples), (high, best, _) = min(found, key=lambda one: one[0]), max(found, key=lambda one: one[0])
    limit = resolution((low + high) / 2, samples, len(found))
    ends = f"{text.percent(low)} to {text.percent(high)}"
    if high - low <= limit:
        return [
            f"Accuracies are {ends}: the same, as far as {samples:,} test images can tell ({100 * limit:.1f} points); one seed."
        ]
    return [
        f"Accuracies range from {text.percent(low)} ({_name(worst)}) to {text.percent(high)} ({_name(best)}), more than {samples:,} test "
        f"images leave to chance ({100 * limit:.1f} points); one seed, so whether it is the strategy only more seeds can tell."
    ]


def _fits(result: Result, given: int | None) -> bool:
    room, _ = front.available(result.completed[0].record, given)
    return room is None or front.held(result) <= (1 - front.KEPT_FREE) * room


def _room(result: Result, given: int | None) -> str:
    room, source = front.available(result.completed[0].record, given)
    return f"{text.size(room or 0.0)} ({source})"


def _name(result: Result) -> str:
    return str(result.point.factors["way"])


def _memory(result: Result) -> str:
    return text.shown(pooled(result, front.memory), text.size)


def _listed(results: Sequence[Result]) -> str:
    names = [_name(r) for r in results]
    return text.listing(names if len(names) <= NAMED else [*names[: NAMED - 1], f"{text.count(len(names) - NAMED + 1)} others"])
