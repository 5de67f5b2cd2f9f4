"""How much memory a training would take, before it starts: tensors of a step at two small batches, extended to any batch by a line."""

from __future__ import annotations

import contextlib

import psutil
import torch

from scalelab.measure import memory, tensors
from scalelab.worker import alone
from scalelab.worker.asked import answering

SIZES = (4, 12)
"""images of the two steps; both small, so that asking takes no memory to speak of"""


def footprint(spec_file: str, answer_file: str) -> int:
    """Write {"fixed", "each", "image", "process", "available"}, bytes of one process without parallelism.

    A step of m images in one forward pass holds ``fixed + each * m`` bytes of tensors at its peak, with a copy of weights and state for
    the probes; each image of its other micro-batches ``image`` more; the process without them ``process``. ``available`` is what the
    device has left: the host's memory, or less where a control group limits it; a GPU's.
    """

    def found() -> dict[str, float]:
        task = alone.task(spec_file)
        process = 0 if task.device.type == "cuda" else _own_bytes()
        few, many = (_step(task, count) for count in SIZES)
        totals = [sum(held[name] for name in tensors.CATEGORIES) for held in (few, many)]
        each = max(0.0, (totals[1] - totals[0]) / (SIZES[1] - SIZES[0]))
        image = 4.0 * torch.Size(task.dataset.shape).numel()
        copied = many["parameters"] + many["optimizer"]
        fixed = max(0.0, totals[0] - each * SIZES[0]) + copied
        return {"fixed": fixed, "each": each, "image": image, "process": process, "available": memory.available(task.device)}

    return answering(answer_file, found)


def _step(task: alone.Task, count: int) -> dict[str, int]:
    """Bytes by category at the peak of a step of ``count`` random images."""
    training = alone.begin(task)
    return tensors.largest(training.model, training.optimizer, lambda: training.step(count))


def _own_bytes() -> int:
    """Memory that this process alone holds: what it shares with the server it was forked from is there already."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process().memory_full_info().uss)
    return int(psutil.Process().memory_info().rss)
