"""Operations of a training, counted without doing them: tensors of torch's ``meta`` device have shapes and no values."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scalelab.record.schema import Figure

IMAGES = 2
"""in the counted batch: batch norm can't train on one"""
METHOD = (
    "FLOPs of the forward and the backward pass, divided by the images, by torch.utils.flop_counter: matrix products, convolutions and "
    "attention, 2 for each multiplication with its addition. Not counted: elementwise operations, normalisation, pooling, softmax, the "
    "optimizer, and what --recompute does again"
)


def per_image(model: nn.Module, shape: tuple[int, ...]) -> Figure:
    """FLOPs of training on one image of ``shape``, frozen parameters' gradients left out; absent where ``model`` can't run on ``meta``.

    ``model`` stays as it is: a copy without values is run.
    """
    unit = "FLOP"
    try:
        empty = _without_values(model).train()
        images = torch.empty(IMAGES, *shape, device="meta", dtype=next(empty.parameters()).dtype)
        with (
            FlopCounterMode(display=False) as counted,
            sdpa_kernel(SDPBackend.MATH),
        ):  # fused kernels have no formula on every device
            _first(empty(images)).sum().backward()
    except Exception as error:  # the model is the user's: a forward that looks at values, a copy that it refuses
        return Figure(unit=unit, reason=f"not counted: the model does not run without values ({type(error).__name__})")
    total = counted.get_total_flops()
    return (
        Figure(unit=unit, median=total / IMAGES, n=1)
        if total
        else Figure(unit=unit, reason="the model has nothing that is counted")
    )


def _without_values(model: nn.Module) -> nn.Module:
    """A copy on ``meta``, made without copying a value first."""
    known: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad) for p in model.parameters()
    }
    known |= {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
    return copy.deepcopy(model, known)


def _first(output: Any) -> Tensor:
    """The tensor of an output that may hold several while training (inception, googlenet: the others are the auxiliary heads')."""
    while not isinstance(output, Tensor):
        output = output[0]
    return output
