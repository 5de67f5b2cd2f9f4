"""What DeepSpeed's ZeRO holds and sends (Rajbhandari et al. 2020), by its version 0.19. Needs neither DeepSpeed nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scalelab.strategies.deepspeed_engine import config
from scalelab.strategies.formulas.explanation import (
    ZERO,
    Explanation,
    Facts,
    Held,
    Parameter,
    Sent,
    activations,
    all_gather,
    all_reduce,
    backend_notes,
    reduce_scatter,
    state_note,
    statistics,
)

PERSISTENT, LIVE = 100_000, 1_000_000_000
"""stage3_param_persistence_threshold and stage3_max_live_parameters, in elements: DeepSpeed's defaults"""
MASTER = 4
"""bytes of an element of a float32 master"""


def explain(facts: Facts, stage: int) -> Explanation:
    """ZeRO ``stage`` 0 to 3 under the configuration that the spec gives."""
    settings = config.config(facts.spec, facts.derived)
    return Explanation(
        held=[*_held(facts, stage, settings["zero_optimization"]), activations(facts)],
        sent=[*_sent(facts, stage, settings["zero_optimization"]), *statistics(facts)],
        symbols=facts.symbols(),
        notes=[*backend_notes(facts), *_notes(facts)],
        config=settings,
    )


def width(facts: Facts, parameter: Parameter) -> int:
    """Bytes of an element of a parameter that forward passes compute with, and of its gradient."""
    return 2 if facts.spec.precision in ("bf16", "fp16") else parameter.itemsize


def flat(parameters: Iterable[Parameter], n: int) -> int:
    """Elements of the tensor in which stages 1 and 2 lay parameters one after the other: a multiple of 2 n."""
    return -(-sum(p.numel for p in parameters) // (2 * n)) * 2 * n


def cut(parameters: Iterable[Parameter], n: int) -> int:
    """Elements that each rank has of parameters which stage 3 cuts one by one."""
    return sum(-(-p.numel // n) for p in parameters)


def _held(facts: Facts, stage: int, zero: dict[str, Any]) -> list[Held]:
    n, trained = facts.workers, facts.trained
    size = width(facts, trained[0])
    part = {0: sum(p.numel for p in trained), 3: cut(trained, n)}.get(stage, flat(trained, n) // n)
    whole = sum(p.numel for p in facts.parameters) * size
    slots = sum(p.state for p in trained) / max(1, sum(p.numel for p in trained))  # bytes for each trained element
    shared = "/n" if stage else ""
    offloaded = "; in the host's memory" if facts.spec.offload != "none" else ""
    bucket = zero["reduce_bucket_size"] * size
    gathered = [Held(what="parameters, gathered", bytes=whole, formula="P", note="until each backward pass ends")]
    return [
        Held(what="parameters", bytes=cut(facts.parameters, n) * size if stage == 3 else whole, formula="P/n" if stage == 3 else "P"),
        *(gathered if stage == 3 else []),
        Held(what="gradients", bytes=(part if stage > 1 else sum(p.numel for p in trained)) * size, formula="G/n" if stage > 1 else "G"),
        *([Held(what="gradient bucket", bytes=bucket, formula="reduce_bucket_size", note="of the configuration")] if stage else []),
        *([_masters(part, shared, offloaded)] if stage or size < MASTER else []),
        Held(
            what="optimizer state", bytes=round(part * slots), formula=f"S{shared}", source=ZERO if stage else "",
            note=state_note(facts) + offloaded,
        ),
    ]  # fmt: skip


def _masters(elements: int, shared: str, where: str) -> Held:
    note = f"a copy of the parameters that the optimizer updates{where}"
    return Held(what="float32 masters", bytes=elements * MASTER, formula=f"4 bytes · parameters{shared}", source=ZERO, note=note)


def _sent(facts: Facts, stage: int, zero: dict[str, Any]) -> list[Sent]:
    n, m, trained = facts.workers, facts.derived.accumulate, facts.trained
    size = width(facts, trained[0])
    gradients = sum(p.numel for p in trained) * size
    if stage == 3:
        return _sent_by_stage_3(facts, size, zero)
    when = "after the last micro-batch's backward pass" if stage < 2 else "in buckets during each backward pass"
    sent = [all_reduce("gradients", gradients, n, "G", when, "n", *((m, "m") if stage == 2 else ()))]
    if stage:
        after = "after the optimizer step, from the worker that owns each range"
        sent.append(all_gather("parameters", flat(trained, n) * size, n, "P", after, note="padded to a multiple of 2 n elements"))
    return sent


def _sent_by_stage_3(facts: Facts, size: int, zero: dict[str, Any]) -> list[Sent]:
    n, m = facts.workers, facts.derived.accumulate
    threshold = zero.get("stage3_param_persistence_threshold", PERSISTENT)
    small = [p for p in facts.parameters if p.numel <= threshold]
    large = [p for p in facts.parameters if p.numel > threshold]
    twice = sum(p.numel for p in facts.parameters) > zero.get("stage3_max_live_parameters", LIVE)
    kept = "before each forward pass" + (
        " and again before each backward pass" if twice else "; kept until the backward pass ends"
    )
    return [
        all_gather(
            "parameters", n * cut(large, n) * size * (2 if twice else 1), n, "2 P" if twice else "P", kept, "n", m, "m",
            f"of more than {threshold:,} elements each" + ("; at most: some are kept for their next use" if twice else ""),
        ),
        all_gather(
            "small parameters", n * cut(small, n) * size, n, "P", "after the optimizer step; kept", note="the others"
        ),
        reduce_scatter(facts.backend)("gradients", n * cut(facts.trained, n) * size, n, "G", "during each backward pass", "n", m, "m"),
    ]  # fmt: skip


def _notes(facts: Facts) -> list[str]:
    notes = []
    if facts.spec.offload != "none":
        what = "parameters, float32 masters, gradients and optimizer state" if facts.spec.offload == "all" else (
            "float32 masters, their gradients and the optimizer's state"
        )  # fmt: skip
        notes.append(
            f"--offload {facts.spec.offload}: {what} lie in the host's memory, where the spec's own optimizer updates them"
        )
    if facts.spec.precision != "fp32":
        notes.append(f"--precision {facts.spec.precision}: parameters and gradients have 2 bytes an element, masters and state 4")
    return notes
