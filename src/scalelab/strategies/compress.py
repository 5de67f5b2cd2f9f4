"""Gradients sent as less than they are: what takes the place of ddp's all-reduce under ``--compress``.

moves: all gradients, rounded to 16 bits, or as two thin matrices for each
when:  in ddp's buckets during the backward pass; powersgd waits for each bucket: on CPUs nothing of it is hidden behind that pass
bytes: fp16, bf16: 2(n-1)/n · P/2 for float32 gradients; powersgd, rank r: 2(n-1)/n times 4 r (rows + columns) for each compressed matrix
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scalelab.spec import Spec

Reduced = torch.futures.Future[Tensor]


class Compressor(Protocol):
    """Averages a bucket of gradients over all ranks, and keeps what it needs for the next step."""

    def reduce(self, bucket: dist.GradBucket) -> Reduced:
        """The bucket's flat gradients, averaged."""

    def held(self) -> list[Tensor]:
        """What is kept between steps."""

    def snapshot(self) -> Callable[[], None]:
        """Copy what is kept; the returned function restores it."""


class Rounded:
    """All-reduce in a 16-bit format. The mean is summed in it too: its rounding grows with the number of ranks.

    torch's fp16_compress_hook does the same, its bf16_compress_hook refuses all but NCCL; gloo sums bf16 as well (torch 2.11 to 2.15).
    Each rank divides before it rounds, so that a sum of large fp16 gradients does not overflow; one above 65504 becomes infinite.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def reduce(self, bucket: dist.GradBucket) -> Reduced:
        """Round, sum, and widen in place."""
        buffer = bucket.buffer()
        small = (buffer / dist.get_world_size()).to(self.dtype)
        future = dist.all_reduce(small, async_op=True).get_future()
        return future.then(lambda done: buffer.copy_(done.value()[0]))

    def held(self) -> list[Tensor]:
        """Nothing."""
        return []

    def snapshot(self) -> Callable[[], None]:
        """Nothing is kept."""
        return lambda: None


class PowerSGD:
    """Each matrix of gradients as a product of rank r, with error feedback and warm start (Vogels et al. 2019, algorithms 1 and 2).

    M, the gradient [rows, columns] plus this rank's error, becomes P·Qᵀ: P = orthogonal(mean of M·Q), Q = mean of Mᵀ·P. What is lost,
    M - P·Qᵀ, is added to the next gradient. It begins with the first step. Matrices that would shrink less than twofold, and vectors,
    are sent whole, together with the bucket's P.

    Not torch's hook: that one starts its second and third collective in a callback. With gloo and several buckets the ranks then call them
    in different orders and gloo aborts (seen with torch 2.15), and the instruments, which see this thread's collectives, miss them.
    """

    def __init__(self, rank: int, parameters: Sequence[nn.Parameter]) -> None:
        self.rank = rank
        self.place: dict[Tensor, int] = {parameter: place for place, parameter in enumerate(parameters)}
        self.error: dict[int, Tensor] = {}
        self.q: dict[int, Tensor] = {}

    def reduce(self, bucket: dist.GradBucket) -> Reduced:
        """Two all-reduces: of P and all that is not compressed, then of Q."""
        matrices, whole = list[tuple[int, Tensor, Tensor]](), list[Tensor]()
        for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
            # As it lies in the bucket: the columns of a channels-last weight come in another order, which is as good.
            matrix = gradient.reshape(len(gradient), -1) if gradient.dim() > 1 else None
            if matrix is None or not self._worth(matrix):
                whole.append(gradient)
            else:
                matrices.append((self.place[parameter], gradient, matrix))
        fed = [matrix + self.error[place] if place in self.error else matrix.clone() for place, _, matrix in matrices]
        first = [m @ self._basis(place, m) for (place, _, _), m in zip(matrices, fed, strict=True)]
        averaged = _mean([*first, *whole])
        for gradient, mean in zip(whole, averaged[len(first) :], strict=True):
            gradient.copy_(mean)
        left = [torch.linalg.qr(p).Q for p in averaged[: len(first)]]
        right = _mean([m.T @ p for m, p in zip(fed, left, strict=True)])
        for (place, gradient, _), m, p, q in zip(matrices, fed, left, right, strict=True):
            approximation = p @ q.T
            self.error[place], self.q[place] = m - approximation, q
            gradient.copy_(approximation.view(gradient.shape))
        buffer = bucket.buffer()
        future: Reduced = torch.futures.Future(devices=[buffer.device] if buffer.is_cuda else None)
        future.set_result(buffer)
        return future

    def _worth(self, matrix: Tensor) -> bool:
        rows, columns = matrix.shape
        return 2 * min(self.rank, rows, columns) * (rows + columns) < rows * columns

    def _basis(self, place: int, matrix: Tensor) -> Tensor:
        """[columns, r]: the last step's Q; random at first, the same on every rank."""
        if place in self.q:
            return self.q[place]
        size = (matrix.shape[1], min(self.rank, *matrix.shape))
        drawn = torch.randn(size, generator=torch.Generator().manual_seed(place), dtype=torch.float64)
        basis: Tensor = torch.linalg.qr(drawn).Q.to(matrix)
        return basis

    def held(self) -> list[Tensor]:
        """The errors and the Qs."""
        return [*self.error.values(), *self.q.values()]

    def snapshot(self) -> Callable[[], None]:
        """They are replaced at each step, never written into: keeping the references is enough."""
        error, q = dict(self.error), dict(self.q)

        def restore() -> None:
            self.error, self.q = dict(error), dict(q)

        return restore


def _mean(parts: Sequence[Tensor]) -> list[Tensor]:
    """The parts' means over all ranks, in one all-reduce."""
    if not parts:
        return []
    flat = torch.cat([part.reshape(-1) for part in parts])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    return [mean.view(part.shape) for part, mean in zip(parts, flat.split([part.numel() for part in parts]), strict=True)]


COMPRESSORS: dict[str, Callable[[Spec, nn.Module], Compressor]] = {
    "fp16": lambda spec, model: Rounded(torch.float16),
    "bf16": lambda spec, model: Rounded(torch.bfloat16),
    "powersgd": lambda spec, model: PowerSGD(spec.powersgd_rank, list(model.parameters())),
}
"""by the names of ``--compress``; what compresses for a spec and a model"""
