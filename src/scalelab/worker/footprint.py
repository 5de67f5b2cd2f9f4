"""How much memory a training would take, before it starts: tensors of a step at two small batches, extended to any batch by a line."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import psutil
import torch
from torch import nn

from scalelab import data, optim
from scalelab import spec as specs
from scalelab.comm.world import on_cuda
from scalelab.data import Dataset
from scalelab.data.room import memory_bytes
from scalelab.measure import tensors
from scalelab.spec import Spec
from scalelab.strategies.blocks import recompute
from scalelab.worker import job
from scalelab.worker.asked import answering

SIZES = (4, 12)
"""images of the two steps; both small, so that asking takes no memory to speak of"""
GROUP = Path("/sys/fs/cgroup")


def footprint(spec_file: str, answer_file: str) -> int:
    """Write {"fixed", "each", "image", "process", "available"}, bytes of one process without parallelism.

    A step of m images in one forward pass holds ``fixed + each * m`` bytes of tensors at its peak, with a copy of weights and state for
    the probes; each image of its other micro-batches ``image`` more; the process without them ``process``. ``available`` is what the
    device has left: the host's memory, or less where a control group limits it; a GPU's.
    """

    def found() -> dict[str, float]:
        spec = specs.load(Path(spec_file))
        torch.set_num_threads(spec.threads_per_worker or 1)
        dataset = data.load(spec, lambda message: print(message, file=sys.stderr, flush=True))
        device = torch.device("cuda" if on_cuda(spec, 1) else "cpu")
        process = 0 if device.type == "cuda" else _own_bytes()
        few, many = (_step(spec, dataset, device, count) for count in SIZES)
        totals = [sum(held[name] for name in tensors.CATEGORIES) for held in (few, many)]
        each = max(0.0, (totals[1] - totals[0]) / (SIZES[1] - SIZES[0]))
        image = 4.0 * torch.Size(dataset.shape).numel()
        copied = many["parameters"] + many["optimizer"]
        fixed = max(0.0, totals[0] - each * SIZES[0]) + copied
        return {"fixed": fixed, "each": each, "image": image, "process": process, "available": available(device)}

    return answering(answer_file, found)


def _step(spec: Spec, dataset: Dataset, device: torch.device, count: int) -> dict[str, int]:
    """Bytes by category at the peak of a step of ``count`` random images."""
    dtype = job.DTYPES.get(spec.precision, torch.float32)
    model = job.seeded_model(spec, dataset).to(device, dtype).train()
    if spec.recompute:
        recompute(model)
    optimizer = optim.build(spec, [parameter for parameter in model.parameters() if parameter.requires_grad])
    images = torch.randn(count, *dataset.shape, device=device, dtype=dtype)
    labels = torch.randint(dataset.num_classes, (count,), device=device)
    low = spec.precision in ("bf16", "fp16")

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16) if low else contextlib.nullcontext():
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return tensors.largest(model, optimizer, step)


def available(device: torch.device) -> int:
    """Bytes that a further process could take now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([psutil.virtual_memory().available, memory_bytes(), *_left_in_group()])


def _left_in_group() -> list[int]:
    """What a control group (version 2) leaves: its limit less what is used, file pages that can be dropped not counted."""
    try:
        limit, used = (int((GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        pages = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # none, another version, or "max": no limit
        return []
    return [limit - used + int(pages.get("inactive_file", 0))]


def _own_bytes() -> int:
    """Memory that this process alone holds: what it shares with the server it was forked from is there already."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process().memory_full_info().uss)
    return int(psutil.Process().memory_info().rss)
