"""What sampling costs a training, read twice: the CPU time of the thread that samples, by its own clock, beside a loop that trains; and
the same training with and without, interleaved, as ratios of the time of a step.

python benchmarks/resources.py --rounds 12 --seconds 60

The first reading is steady where other programs use the cores too, because a thread's clock stands still while it waits for one. It
leaves out what the training waits for a sample that holds Python's lock and has no core just then; the second reading has that too.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from scalelab import models
from scalelab import spec as specs
from scalelab.comm.world import World
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.launcher import Prepared
from scalelab.launch.pool import Pool
from scalelab.measure.statistics import figure
from scalelab.record import samples
from scalelab.record.schema import Figure
from scalelab.worker.sampling import THREAD, sampling

GOAL = 0.01
"""share of a step's time that sampling may cost"""
TRAINING: dict[str, Any] = {
    "data": "synthetic", "strategy": "ddp", "workers": 2, "threads_per_worker": 1, "batch": 128, "train_limit": 2048,
    "evaluate": False, "checkpoint": False, "probe_steps": 0, "warmup_steps": 20,
}  # fmt: skip
OFTEN = 50
"""times as often, in a third kind of training: what can't be seen in the noise once a second can then, and is divided again"""
EVERY, WINDOW = 0.1, 1.0
"""seconds between two samples beside the loop that trains, and of a window, whose samples are one value"""


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 where the goal is not reached, 2 for a user's mistake."""
    flags = argparse.ArgumentParser(description="what sampling each worker's resources costs a step")
    flags.add_argument("--rounds", type=int, default=12, help="times that each kind of training runs")
    flags.add_argument("--steps", type=int, default=220, help="of each training, 20 of them warm-up")
    flags.add_argument("--seconds", type=int, default=60, help="that the sampling thread's clock is read")
    flags.add_argument("--seed", type=int, default=0, help="of the order in each round")
    given = flags.parse_args(words)
    clock = by_its_clock(given.seconds)
    said = f"{1e6 * (clock.median or 0):.0f} µs of a core, {percent(clock)} of a second"
    print(f"by the clock of the thread that samples, a sample takes {said}, n = {clock.n} windows of {WINDOW:g} s")
    try:
        found = measure(given.rounds, given.steps, given.seed)
    except ScalelabError as error:
        print(f"benchmarks/resources.py: {error}", file=sys.stderr)
        return error.exit_status
    once, often = (figure([ratio - 1 for ratio in ratios], "share of a step") for ratios in found)
    each = scaled(often, 1 / OFTEN)
    print(f"a sample a second makes a step longer by {percent(once)}, n = {once.n} interleaved rounds")
    print(f"{OFTEN} samples a second by {percent(often)}, n = {often.n}: {percent(each)} for each")
    reached = (clock.ci95 or (0.0, 1.0))[1] < GOAL and (each.ci95 or (0.0, 0.0))[0] < GOAL
    print(f"the goal, below {100 * GOAL:g} % of a step, is {'reached' if reached else 'not reached'}")
    return 0 if reached else 1


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


def by_its_clock(seconds: int) -> Figure:
    """CPU seconds of one sample and its line, on the thread that takes it, while this one trains a model; a value for each window."""
    world, found = World(0, 2, 0, torch.device("cpu"), "gloo", 0, 2, "", 0.5), []
    step = training_step()
    with tempfile.TemporaryDirectory(prefix="scalelab-bench-") as folder, sampling(Path(folder), world, EVERY):
        thread = next(one for one in threading.enumerate() if one.name == THREAD)
        assert thread.ident is not None
        clock, path = time.pthread_getcpuclockid(thread.ident), samples.path(Path(folder), 0)
        last = None
        while len(found) < seconds:
            until = time.monotonic() + WINDOW
            while time.monotonic() < until:
                step()
            now = (time.clock_gettime(clock), path.read_bytes().count(b"\n") if path.exists() else 0)
            if last is not None and now[1] > last[1]:  # the first window holds what the thread does once
                found.append((now[0] - last[0]) / (now[1] - last[1]))
            last = now
    return figure(found, "s")


def training_step() -> Callable[[], None]:
    """A step of basic_cnn on 16 images of 32 x 32."""
    model = models.build(specs.from_mapping({"model": "basic_cnn"}), 10, (3, 32, 32))
    images, labels = torch.randn(16, 3, 32, 32), torch.randint(0, 10, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


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
