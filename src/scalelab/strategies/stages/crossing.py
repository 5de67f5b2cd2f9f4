"""What passes from one stage to the next: an activation, and the gradient with respect to it on the way back.

Neighbours tell each other its shape, type and layout once for each batch size; after that only the values travel. A channels-last
activation travels as it lies in memory, [B, H, W, C]: nobody copies it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
"""orders of axes: what travels of a channels-last activation, and back"""
AXES = 8
"""a header has room for so many axes"""


@dataclass(frozen=True)
class Crossing:
    """One micro-batch's activation between two stages, as it travels: ``shape`` and ``dtype``."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool
    """whether the activation itself is [B, C, H, W], lying in memory as [B, H, W, C]: the latter is ``shape``"""
    requires_grad: bool
    """whether a gradient comes back: not where all layers before are frozen"""

    @property
    def bytes(self) -> int:
        """Of the activation; the gradient has as many."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def empty(self, device: torch.device) -> Tensor:
        """A tensor to receive into."""
        return torch.empty(self.shape, dtype=self.dtype, device=device)


def of(activation: Tensor) -> Crossing:
    """How ``activation`` is to travel."""
    last = (
        activation.dim() == 4 and not activation.is_contiguous() and activation.is_contiguous(memory_format=torch.channels_last)
    )
    shape = tuple(activation.permute(NHWC).shape if last else activation.shape)
    return Crossing(shape, activation.dtype, last, activation.requires_grad)


def plain(activation: Tensor) -> Crossing:
    """``activation`` as it is, which goes nowhere."""
    return Crossing(tuple(activation.shape), activation.dtype, False, activation.requires_grad)


def leaving(activation: Tensor, crossing: Crossing) -> Tensor:
    """``activation`` as it travels: contiguous."""
    return _Turn.apply(activation, NHWC if crossing.channels_last else None)  # type: ignore[no-any-return]


def entering(arrived: Tensor, crossing: Crossing) -> Tensor:
    """The activation that arrived. Its gradient is made contiguous, for it travels too."""
    return _Turn.apply(arrived, NCHW if crossing.channels_last else None)  # type: ignore[no-any-return]


class _Turn(torch.autograd.Function):
    """The axes in another order, in the same memory, and yet no view of the input.

    A stage may begin with an operation in place (ReLU), which autograd forbids on a leaf and its views; torch's zero-bubble schedule
    detaches a stage's output in place, which is forbidden for any view. Towards the wire, values and gradients are made contiguous.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: tuple[int, ...] | None) -> Tensor:
        ctx.back = NHWC if order == NCHW else NCHW if order == NHWC else None
        values = _turned(x.detach(), order)
        strides = values.stride() if order == NCHW else ()  # () is contiguous, of axes of length 1 too
        return values.new_empty(0).set_(values.untyped_storage(), values.storage_offset(), values.shape, strides)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _turned(gradient, ctx.back), None


def _turned(x: Tensor, order: tuple[int, ...] | None) -> Tensor:
    if order == NCHW:
        return x.permute(NCHW)  # an activation, channels-last
    return (x.permute(NHWC) if order == NHWC else x).contiguous()


def tell(crossing: Crossing, to: int, group: dist.ProcessGroup, device: torch.device) -> None:
    """Send what ``ask`` on the rank ``to`` of the group receives."""
    head = [DTYPES.index(crossing.dtype), crossing.channels_last, crossing.requires_grad, len(crossing.shape), *crossing.shape]
    header = torch.zeros(4 + AXES, dtype=torch.int64)
    header[: len(head)] = torch.tensor(head)
    dist.send(header.to(device), group=group, group_dst=to)


def ask(source: int, group: dist.ProcessGroup, device: torch.device) -> Crossing:
    """Receive what the neighbour's ``tell`` sent."""
    header = torch.empty(4 + AXES, dtype=torch.int64, device=device)
    dist.recv(header, group=group, group_src=source)
    dtype, last, grad, axes, *shape = header.tolist()
    return Crossing(tuple(shape[:axes]), DTYPES[dtype], bool(last), bool(grad))
