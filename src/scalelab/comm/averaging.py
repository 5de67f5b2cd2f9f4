"""The mean of gradients over replicas, after the backward pass, in flat buckets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import nn

from scalelab.comm.flat import CHUNK


def average_gradients(parameters: Iterable[nn.Parameter], group: dist.ProcessGroup | None) -> None:
    """Replace each gradient by its mean over the ranks of ``group``, which hold the same parameters in the same order.

    One all-reduce a bucket, all under way at once. Each bucket carries a number a parameter besides: on how many ranks it has a
    gradient. One without counts as zero, and stays without where no rank has any, as in one process.
    """
    size = dist.get_world_size(group)
    if size == 1:
        return
    under_way = []
    for bucket in _buckets(p for p in parameters if p.requires_grad):
        present = torch.tensor([float(p.grad is not None) for p in bucket], dtype=bucket[0].dtype, device=bucket[0].device)
        parts = [torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1) for p in bucket]
        flat = torch.cat([*parts, present])
        under_way.append((bucket, flat, dist.all_reduce(flat, group=group, async_op=True)))
    for bucket, flat, work in under_way:
        work.wait()
        flat /= size
        *means, present = flat.split([*(p.numel() for p in bucket), len(bucket)])
        lacking = any(p.grad is None for p in bucket)
        somewhere = present.tolist() if lacking else [1.0] * len(bucket)  # to read it is to wait for the device
        for parameter, mean, having in zip(bucket, means, somewhere, strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(mean.view_as(parameter.grad))
            elif having:
                parameter.grad = mean.view_as(parameter).clone(memory_format=torch.preserve_format)


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Runs of parameters of one type with at most ``CHUNK`` bytes, or one that is larger."""
    bucket: list[nn.Parameter] = []
    held = 0
    for parameter in parameters:
        if bucket and (held + parameter.nbytes > CHUNK or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(parameter)
        held += parameter.nbytes
    if bucket:
        yield bucket
