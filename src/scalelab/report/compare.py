"""Two runs side by side: what was set differently, which figures differ beyond chance, and how far the losses part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scalelab.measure.statistics import blocks, differs, quotient, ratio
from scalelab.record.export import FIGURES as RECORDED
from scalelab.record.schema import Figure, Step, TrainRecord
from scalelab.report.about import environment_facts
from scalelab.report.alike import task
from scalelab.report.table import accuracy_figure


@dataclass(frozen=True)
class Difference:
    """A key of the spec or of the environment in which the runs differ; None where one has no such key."""

    key: str
    a: str | None
    b: str | None


@dataclass(frozen=True)
class Compared:
    """One figure of both runs, and b / a. ``differs`` only if the ratio's 95 % interval excludes 1."""

    name: str
    a: Figure
    b: Figure
    ratio: Figure
    differs: bool


@dataclass(frozen=True)
class Comparison:
    """Run b against run a."""

    a: str
    b: str
    alike: bool
    """whether model, data, precision and hardware agree: otherwise a ratio is not the strategy's alone"""
    spec: list[Difference]
    environment: list[Difference]
    figures: list[Compared]
    loss: Figure
    """the largest relative difference of the losses over the steps both ran"""
    loss_step: int | None
    """the step at which it was found"""


FIGURES: dict[str, Callable[[TrainRecord], Figure]] = {**RECORDED, "accuracy": accuracy_figure}

# Figures that the recorded steps hold value by value: their ratio is bootstrapped from blocks of 10 steps.
PER_STEP: dict[str, Callable[[Sequence[Step]], list[float]]] = {
    "images_per_second": lambda steps: [steps[0].batch / seconds for seconds in blocks([step.seconds for step in steps])],
    "step_seconds": lambda steps: blocks([step.seconds for step in steps]),
    "data_wait_seconds": lambda steps: blocks([step.data_seconds for step in steps]),
}


def compare(a: TrainRecord, b: TrainRecord, steps_a: Sequence[Step], steps_b: Sequence[Step]) -> Comparison:
    """What differs between run ``a`` and run ``b``; ratios are b / a."""
    loss, loss_step = _loss(steps_a, steps_b)
    return Comparison(
        a=a.run,
        b=b.run,
        alike=task(a) == task(b),
        spec=_differences(_text(a.spec), _text(b.spec)),
        environment=_differences(dict(environment_facts(a.environment)), dict(environment_facts(b.environment))),
        figures=[_compared(name, a, b, timed(a, steps_a), timed(b, steps_b)) for name in FIGURES],
        loss=loss,
        loss_step=loss_step,
    )


def timed(record: TrainRecord, steps: Sequence[Step]) -> list[Step]:
    """The steps of the last attempt after its warm-up: those that the record's times are made of."""
    start = record.attempts[-1].first_step if record.attempts else 0
    return [step for step in steps if step.step > start + int(record.spec.get("warmup_steps", 0)) and step.seconds > 0]


def _compared(name: str, a: TrainRecord, b: TrainRecord, steps_a: Sequence[Step], steps_b: Sequence[Step]) -> Compared:
    first, second = FIGURES[name](a), FIGURES[name](b)
    found = _ratio(name, first, second, steps_a, steps_b)
    return Compared(name=name, a=first, b=second, ratio=found, differs=differs(found))


def _ratio(name: str, a: Figure, b: Figure, steps_a: Sequence[Step], steps_b: Sequence[Step]) -> Figure:
    read = PER_STEP.get(name)
    if read is None or not steps_a or not steps_b or a.median is None or b.median is None:
        return quotient(b, a)
    values_a, values_b = read(steps_a), read(steps_b)
    return ratio(values_b, values_a) if min(*values_a, *values_b) > 0 else quotient(b, a)


def _loss(steps_a: Sequence[Step], steps_b: Sequence[Step]) -> tuple[Figure, int | None]:
    """Largest |a - b| / max(|a|, |b|) over common steps, and its step."""
    losses = {step.step: step.loss for step in steps_a}
    common = [(step.step, losses[step.step], step.loss) for step in steps_b if step.step in losses]
    if not common:
        return Figure(unit="relative", reason="the runs have no step in common"), None
    place, one, other = max(common, key=lambda entry: _relative(entry[1], entry[2]))
    return Figure(unit="relative", median=_relative(one, other), n=len(common)), place


def _relative(a: float, b: float) -> float:
    largest = max(abs(a), abs(b))
    return abs(a - b) / largest if largest else 0.0


def _text(values: dict[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def _differences(a: dict[str, str], b: dict[str, str]) -> list[Difference]:
    keys = dict.fromkeys([*a, *b])
    return [Difference(key, a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)]
