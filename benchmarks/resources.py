"""What sampling costs a training: the same training with and without, interleaved, as ratios of the time of a step.

python benchmarks/resources.py --rounds 12
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import torch

from scalelab import spec as specs
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.launcher import Prepared
from scalelab.launch.pool import Pool
from scalelab.measure.resources import Reader
from scalelab.measure.statistics import figure
from scalelab.record.schema import Figure

GOAL = 0.01
"""share of a step's time that sampling may cost"""
TRAINING: dict[str, Any] = {
    "data": "synthetic", "strategy": "ddp", "workers": 2, "threads_per_worker": 1, "batch": 128, "train_limit": 2048,
    "evaluate": False, "checkpoint": False, "probe_steps": 0, "warmup_steps": 20,
}  # fmt: skip


OFTEN = 50
"""times as often, in a third kind of training: what can't be seen in the noise once a second can then, and is divided again"""


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 where the goal is not reached, 2 for a user's mistake."""
    flags = argparse.ArgumentParser(description="what sampling each worker's resources costs a step")
    flags.add_argument("--rounds", type=int, default=12, help="times that each kind of training runs")
    flags.add_argument("--steps", type=int, default=220, help="of each training, 20 of them warm-up")
    flags.add_argument("--seed", type=int, default=0, help="of the order in each round")
    given = flags.parse_args(words)
    try:
        found = measure(given.rounds, given.steps, given.seed)
    except ScalelabError as error:
        print(f"benchmarks/resources.py: {error}", file=sys.stderr)
        return error.exit_status
    once, often = (figure([ratio - 1 for ratio in ratios], "share of a step") for ratios in found)
    alone = one_sample()
    print(f"a sample a second makes a step longer by {percent(once)}, n = {once.n} interleaved rounds")
    print(f"{OFTEN} samples a second by {percent(often)}: {percent(scaled(often, 1 / OFTEN))} for each")
    print(f"a sample takes {1e6 * (alone.median or 0):.0f} µs of one core: {percent(alone)} of a second, n = {alone.n}")
    return 0 if (scaled(often, 1 / OFTEN).ci95 or (0.0, 1.0))[1] < GOAL else 1


def measure(rounds: int, steps: int, seed: int) -> tuple[list[float], list[float]]:
    """The step with a sample a second, and with fifty, over that without, for each round. Raises ScalelabError."""
    order = random.Random(seed)
    once, often = [], []
    with tempfile.TemporaryDirectory(prefix="scalelab-bench-") as out, Pool() as pool:
        kinds = {
            every: training.prepare(pool, specs.from_mapping({**TRAINING, "out": out, "steps": steps, "sample_seconds": every}))
            for every in (0.0, 1.0, 1.0 / OFTEN)
        }
        for number in range(rounds):
            none, one, many = by_kind({every: step(pool, kinds[every]) for every in order.sample(sorted(kinds), len(kinds))})
            once.append(one / none)
            often.append(many / none)
            print(
                f"round {number + 1}/{rounds}: {1e3 * none:.2f} ms a step; x {once[-1]:.4f}, x {often[-1]:.4f}", file=sys.stderr
            )
    return once, often


def by_kind(seconds: dict[float, float]) -> tuple[float, float, float]:
    """Without samples, with one a second, with fifty."""
    return seconds[0.0], seconds[1.0], seconds[1.0 / OFTEN]


def step(pool: Pool, prepared: Prepared) -> float:
    """Seconds of a step of one training."""
    record = training.train(pool, prepared, sys.argv, lambda folder: None)
    if record.step_seconds.median is None:
        raise ScalelabError(f"the training gave no time: {record.failure or record.step_seconds.reason}")
    return record.step_seconds.median


def one_sample() -> Figure:
    """CPU seconds of one sample and its line."""
    reader, encoder, found = Reader(torch.device("cpu"), "lo"), msgspec.json.Encoder(), []
    for _ in range(200):
        began = time.thread_time()
        encoder.encode(reader.sample(0))
        found.append(time.thread_time() - began)
    return figure(found[20:], "s")


def scaled(value: Figure, factor: float) -> Figure:
    """The figure times a number."""
    low, high = value.ci95 or (0.0, 0.0)
    return Figure(unit="ratio", median=(value.median or 0.0) * factor, n=value.n, ci95=(low * factor, high * factor))


def percent(share: Figure) -> str:
    """``0.12 % [-0.30, 0.55]``."""
    interval = f" [{100 * share.ci95[0]:.3f}, {100 * share.ci95[1]:.3f}]" if share.ci95 else ""
    return f"{100 * (share.median or 0):.3f} %{interval}"


if __name__ == "__main__":
    sys.exit(main())
