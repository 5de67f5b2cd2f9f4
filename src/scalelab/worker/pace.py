"""How long a step of a model takes on one process, found out in a second before any training: what a study's estimate is made of."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from scalelab import data, optim
from scalelab import spec as specs
from scalelab.data import Dataset
from scalelab.spec import Spec
from scalelab.worker import job
from scalelab.worker.asked import answering

SECONDS = 0.4
"""of steps of each of the two sizes, at least"""
LONGEST = 3.0
"""seconds that a step of the larger size may take; else the smaller one stands for both"""


def pace(spec_file: str, answer_file: str) -> int:
    """Write {"fixed", "each"}: a step of n images takes ``fixed + each * n`` seconds, from steps of two sizes up to ``--batch``."""

    def found() -> dict[str, float]:
        spec = specs.load(Path(spec_file))
        torch.set_num_threads(spec.threads_per_worker or 1)
        dataset = data.load(spec, lambda message: print(message, file=sys.stderr, flush=True))
        large = spec.batch or 64
        small = max(1, large // 4)
        step = stepping(spec, dataset)
        few = timed(lambda: step(small))
        if small == large or few * large / small > LONGEST:
            return {"fixed": 0.0, "each": few / small}
        many = timed(lambda: step(large))
        each = max((many - few) / (large - small), many / large / 2)  # noise must not make images cost nothing
        return {"fixed": max(0.0, many - each * large), "each": each}

    return answering(answer_file, found)


def stepping(spec: Spec, dataset: Dataset) -> Callable[[int], None]:
    """A function that trains the model of ``spec`` on so many random images, once."""
    device = torch.device("cuda" if spec.device == "cuda" else "cpu")
    dtype = job.DTYPES.get(spec.precision, torch.float32)
    model = job.seeded_model(spec, dataset).to(device, dtype).train()
    optimizer = optim.build(spec, [parameter for parameter in model.parameters() if parameter.requires_grad])
    layout = torch.channels_last if spec.channels_last != "off" and len(dataset.shape) == 3 else torch.contiguous_format
    model = model.to(memory_format=layout)
    low = spec.precision in ("bf16", "fp16")

    def step(count: int) -> None:
        images = torch.randn(count, *dataset.shape, device=device, dtype=dtype).to(memory_format=layout)
        labels = torch.randint(dataset.num_classes, (count,), device=device)
        with torch.autocast(device.type, torch.bfloat16) if low else contextlib.nullcontext():
            loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU

    return step


def timed(step: Callable[[], None]) -> float:
    """The least seconds of a few steps, after one that is not counted: what another program takes away is no part of a pace."""
    step()
    began = time.perf_counter()
    seconds: list[float] = []
    while not seconds or (time.perf_counter() - began < SECONDS and len(seconds) < 20):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
