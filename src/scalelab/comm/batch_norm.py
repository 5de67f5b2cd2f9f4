"""Batch norm over the global batch, exact on every device; and the serial twin of per-worker batch norm.

torch's SyncBatchNorm runs on CUDA only. Here, forward: one all-gather of [count, mean, variance] per rank, combined by
Chan's formula (Chan, Golub & LeVeque 1979); backward: one all-reduce of [Σg, Σg·x̂]. The gradients of weight and
bias stay local: the strategy averages them like all others.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from scalelab.errors import ScalelabError


def check(model: nn.Module) -> None:
    """Raises ScalelabError when a batch norm of ``model`` is of a class that can't be synchronised."""
    _batch_norms(model)


def synchronise(model: nn.Module, group: dist.ProcessGroup) -> nn.Module:
    """Make every batch norm of ``model`` use the statistics of all ranks of ``group``; parameters and names stay."""
    for norm in _batch_norms(model):
        norm.__class__ = _synced(type(norm))
        norm.__dict__["group"] = group  # not through Module.__setattr__: it is no part of the module's state
    return model


def per_replica(model: nn.Module, slices: tuple[int, ...]) -> nn.Module:
    """Make one process normalise each replica's slice of the batch by itself, as workers with ``slices`` samples each would.

    The running statistics become the mean over the replicas: what workers average before evaluation.
    """
    for norm in _batch_norms(model):
        norm.__class__ = _sliced(type(norm))
        norm.__dict__["slices"] = slices
    return model


def widen(model: nn.Module) -> nn.Module:
    """Make every batch norm that is not synchronised compute with float32 statistics where its weights are bf16 or fp16."""
    for norm in model.modules():
        if isinstance(norm, _BatchNorm) and not isinstance(norm, _Forward) and _known(norm):
            norm.__class__ = _derive(_WideForward, type(norm))
    return model


def average_buffers(model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """Replace the floating-point buffers by their mean over the ranks, in one collective."""
    flat = flat_buffers(model)
    if not flat.numel() or dist.get_world_size(group) == 1:
        return
    dist.all_reduce(flat, group=group)
    fill_buffers(model, flat / dist.get_world_size(group))


def flat_buffers(model: nn.Module) -> Tensor:
    """The floating-point buffers of ``model`` as one tensor, [n] float64."""
    buffers = [b.detach().reshape(-1).to(torch.float64) for b in model.buffers() if b.is_floating_point()]
    return torch.cat(buffers) if buffers else torch.empty(0, dtype=torch.float64)


def fill_buffers(model: nn.Module, flat: Tensor) -> None:
    """Set the floating-point buffers of ``model`` to what ``flat_buffers`` gave of an equal model."""
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        if not _known(norm):
            raise ScalelabError(f"batch norm of class {type(norm).__name__} cannot be synchronised; use --batch-norm local")
    return norms


def _known(norm: nn.Module) -> bool:
    return type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) or _has_activation(norm)


def _has_activation(norm: nn.Module) -> bool:
    return hasattr(norm, "act") and hasattr(norm, "drop")  # timm's BatchNormAct2d: batch norm, dropout, activation


class _Forward:
    """Takes the place of a batch norm's forward; ``normalise`` is what training does instead."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, *] → [N, C, *]."""
        assert isinstance(self, _BatchNorm)
        if self.training:
            out = self.normalise(x)
        else:  # without running statistics, by this batch alone: an evaluation never waits for other ranks
            own = self.running_mean is None
            weight, bias = (
                (self.weight, self.bias) if self.running_mean is None else _as(self.running_mean, self.weight, self.bias)
            )
            out = F.batch_norm(x, self.running_mean, self.running_var, weight, bias, own, 0.0, self.eps)
        return self.act(self.drop(out)) if _has_activation(self) else out  # type: ignore[operator]

    def normalise(self, x: Tensor) -> Tensor:
        """[N, C, *] → [N, C, *], and the running statistics brought up to date."""
        raise NotImplementedError


class _SyncForward(_Forward):
    group: dist.ProcessGroup

    def normalise(self, x: Tensor) -> Tensor:
        """With the statistics of all ranks' N."""
        assert isinstance(self, _BatchNorm)
        out, mean, unbiased = _SyncBatchNorm.apply(x, self.weight, self.bias, self.eps, self.group)
        _track(self, mean, unbiased)
        return out  # type: ignore[no-any-return]


class _SliceForward(_Forward):
    slices: tuple[int, ...]

    def normalise(self, x: Tensor) -> Tensor:
        """N is a multiple of the slices' sum: each slice by its own statistics."""
        assert isinstance(self, _BatchNorm)
        repeats = len(x) // sum(self.slices)
        slices, axes = x.split([n * repeats for n in self.slices]), [0, *range(2, x.dim())]
        with torch.no_grad():
            variances, means = (
                torch.stack(v).mean(0) for v in zip(*(torch.var_mean(s, axes, correction=1) for s in slices), strict=True)
            )
        _track(self, means, variances)
        return torch.cat([F.batch_norm(s, None, None, self.weight, self.bias, True, 0.0, self.eps) for s in slices])


class _WideForward(_Forward):
    def normalise(self, x: Tensor) -> Tensor:
        """Statistics and weights in float32, whatever the weights and x are."""
        assert isinstance(self, _BatchNorm)
        wide = x.detach().float()
        variance, mean = torch.var_mean(wide, [0, *range(2, x.dim())], correction=1)
        _track(self, mean, variance)
        return F.batch_norm(x, None, None, *_as(wide, self.weight, self.bias), True, 0.0, self.eps)


def _as(like: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    return None if weight is None else weight.to(like.dtype), None if bias is None else bias.to(like.dtype)


def _track(norm: _BatchNorm, mean: Tensor, unbiased_variance: Tensor) -> None:
    if not norm.training or not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        rate = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), rate)
        norm.running_var.lerp_(unbiased_variance.to(norm.running_var.dtype), rate)


_CLASSES: dict[tuple[type, type], type] = {}


def _derive(mixin: type, kind: type) -> type:
    return _CLASSES.setdefault((mixin, kind), type(f"{mixin.__name__[1:-7]}{kind.__name__}", (mixin, kind), {}))


def _synced(kind: type) -> type:
    return _derive(_SyncForward, kind)


def _sliced(kind: type) -> type:
    return _derive(_SliceForward, kind)


class _SyncBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: dist.ProcessGroup) -> Any:
        axes = [0, *range(2, x.dim())]
        channels, shape = x.shape[1], [1, -1] + [1] * (x.dim() - 2)
        wide = x if x.dtype == torch.float64 else x.float()  # statistics of bf16 in bf16 would be useless
        local_count = x.numel() // channels
        variance, mean = torch.var_mean(wide, axes, correction=0)
        mine = torch.cat([mean.new_tensor([float(local_count)]), mean, variance])
        table = mine.new_empty(dist.get_world_size(group), mine.numel())
        dist.all_gather_into_tensor(table.view(-1), mine, group=group)
        counts, means, variances = table[:, :1], table[:, 1 : channels + 1], table[:, channels + 1 :]
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        inverse = (variance + eps).rsqrt()
        normal = (wide - mean.view(shape)) * inverse.view(shape)
        out = normal if weight is None else normal * weight.view(shape)
        out = out if bias is None else out + bias.view(shape)
        ctx.save_for_backward(normal, weight, inverse, count)
        ctx.axes, ctx.shape, ctx.group, ctx.dtype = axes, shape, group, x.dtype
        ctx.mark_non_differentiable(mean, unbiased := variance * count / (count - 1).clamp_min(1))
        return out.to(x.dtype), mean, unbiased

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> Any:
        normal, weight, inverse, count = ctx.saved_tensors
        grad = grad.to(normal.dtype)
        d_bias, d_weight = grad.sum(ctx.axes), (grad * normal).sum(ctx.axes)
        sums = torch.cat([d_bias, d_weight])
        dist.all_reduce(sums, group=ctx.group)
        mean_grad, mean_grad_normal = (sums / count).chunk(2)
        scale = inverse if weight is None else inverse * weight
        dx = (grad - mean_grad.view(ctx.shape) - normal * mean_grad_normal.view(ctx.shape)) * scale.view(ctx.shape)
        return dx.to(ctx.dtype), None if weight is None else d_weight, None if weight is None else d_bias, None, None
