"""What every contender shares: its arguments, its process group, the clock, and the one JSON line rank 0 prints.

A contender is a program that two (``WORLD_SIZE``) processes run with torchrun's variables. It makes a ``Step``:
a function that fetches one batch of its rank and trains on it, wholly. ``run`` times that and nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
MOMENTUM = 0.9
PADDING = 4

Step = Callable[[], Tensor]
"""Trains on the next batch of this rank; the loss, still a tensor."""


@dataclass(frozen=True)
class Arguments:
    """What the contest fixes. ``images`` is uint8 [N, 32, 32, 3], ``labels`` int64 [N]."""

    images: np.ndarray
    labels: np.ndarray
    batch: int
    steps: int
    warmup: int
    seed: int
    rank: int
    world: int
    learning_rate: float
    loaders: int
    channels_last: bool


def arguments() -> Arguments:
    """The arguments that trainer.py gives. The images are mapped, not read: ranks share one copy of the pages."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder with images.npy and labels.npy")
    for name in ("batch", "steps", "warmup", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--loaders", type=int, default=0, help="DataLoader workers of each rank")
    parser.add_argument("--channels-last", type=int, default=0, help="1: models in that layout; the tuned ones always are")
    given = parser.parse_args()
    return Arguments(
        np.load(given.data / "images.npy", mmap_mode="r"),
        np.load(given.data / "labels.npy"),
        given.batch,
        given.steps,
        given.warmup,
        given.seed,
        int(os.environ["RANK"]),
        int(os.environ["WORLD_SIZE"]),
        given.learning_rate,
        given.loaders,
        bool(given.channels_last),
    )


def start_process_group() -> None:
    """gloo and one thread, as every contender has it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")


def endless(loader: Iterable[list[Tensor]], new_epoch: Callable[[int], None]) -> Iterator[list[Tensor]]:
    """Batches, epoch after epoch; ``new_epoch`` is told the number of each (for samplers that shuffle by it)."""
    for epoch in itertools.count():
        new_epoch(epoch)
        yield from loader


def run(name: str, given: Arguments, step: Step) -> None:
    """Times ``given.steps`` whole steps after ``given.warmup``; rank 0 prints the line. Ends the process group.

    The ranks leave a barrier together; the time is the slowest rank's, from there to the end of its last step.
    """
    losses = [step() for _ in range(given.warmup)]
    dist.barrier()
    begin = time.perf_counter()
    for _ in range(given.steps):
        losses.append(step())
    seconds = torch.tensor([time.perf_counter() - begin], dtype=torch.float64)
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    if given.rank == 0:
        rate = given.steps * given.batch * given.world / seconds.item()
        last = torch.stack([loss.detach() for loss in losses])[-10:].mean().item()
        line = {"contender": name, "images_per_second": rate, "seconds": seconds.item(), "last_loss": last}
        print(json.dumps(line), flush=True)
    dist.barrier()
    dist.destroy_process_group()
