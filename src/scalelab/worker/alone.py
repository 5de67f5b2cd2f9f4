"""One process that takes steps on random images, as a training of a spec would: what is found out of it before anything is trained."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from scalelab import data, optim, strategies, userfile
from scalelab import spec as specs
from scalelab.comm.world import on_cuda
from scalelab.data import Dataset
from scalelab.spec import Spec
from scalelab.strategies.blocks import recompute
from scalelab.worker import job


@dataclass(frozen=True)
class Task:
    """What is trained, on what, where."""

    spec: Spec
    dataset: Dataset
    device: torch.device


@dataclass(frozen=True)
class Training:
    """``step(count)`` trains on so many random images, once, and waits for the device. It raises ScalelabError where the model does."""

    model: nn.Module
    optimizer: Optimizer
    step: Callable[[int], None]


def task(spec_file: str) -> Task:
    """What the spec in a file asks of one process; its threads are set. Raises ScalelabError."""
    spec = specs.load(Path(spec_file))
    torch.set_num_threads(spec.threads_per_worker or 1)
    dataset = data.load(spec, lambda message: print(message, file=sys.stderr, flush=True))
    return Task(spec, dataset, torch.device("cuda" if on_cuda(spec, 1) else "cpu"))


def begin(task: Task) -> Training:
    """The model with its first weights, and an optimizer without state."""
    spec, dataset, device = task.spec, task.dataset, task.device
    dtype = job.DTYPES.get(spec.precision, torch.float32)
    weights_last, images_last = job.channels_last(spec, strategies.load("single", "torch"), device)
    model = job.seeded_model(spec, dataset).to(device, dtype).train()
    if weights_last:
        model = model.to(memory_format=torch.channels_last)
    layout = torch.channels_last if images_last and len(dataset.shape) == 3 else torch.contiguous_format
    if spec.recompute:
        recompute(model)
    optimizer = optim.build(spec, [parameter for parameter in model.parameters() if parameter.requires_grad])
    low = spec.precision in ("bf16", "fp16")

    def step(count: int) -> None:
        with userfile.blame(f"a step of {count} image{'s' * (count != 1)} fails"):
            taken(count)

    def taken(count: int) -> None:
        images = torch.randn(count, *dataset.shape, device=device, dtype=dtype).to(memory_format=layout)
        labels = torch.randint(dataset.num_classes, (count,), device=device)
        with torch.autocast(device.type, torch.bfloat16) if low else contextlib.nullcontext():
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return Training(model, optimizer, step)
