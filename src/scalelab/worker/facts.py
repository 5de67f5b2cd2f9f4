"""What formulas need to know of a model, its optimizer and one micro-batch: found out by running them, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scalelab import models, optim
from scalelab.batch import Derived
from scalelab.comm import batch_norm
from scalelab.comm.world import on_cuda
from scalelab.data import Batches, Dataset
from scalelab.measure.saved import saved_bytes
from scalelab.spec import Spec
from scalelab.strategies.blocks import blocks, recompute
from scalelab.strategies.formulas.explanation import Facts, Norm, Parameter
from scalelab.worker.job import DTYPES

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def alone() -> Iterator[None]:
    """A process group of this process alone, in which synchronised batch norms run."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def gather(spec: Spec, derived: Derived, model: nn.Module, dataset: Dataset) -> Facts:
    """The facts of a model: one forward and backward pass of a micro-batch, one step of the optimizer.

    ``model`` becomes what a rank trains (recomputing, synchronised); inside ``alone`` where batch norm is.
    """
    dtype = DTYPES.get(spec.precision, torch.float32)
    samples = Batches(
        dataset.train, dataset.mean, dataset.std, "none", spec.seed, torch.device("cpu"), dtype, resize=dataset.resize
    )
    images, labels = samples.fetch(torch.arange(derived.micro_batch) % len(samples), 0, True)
    model = model.to(dtype).train()
    units, unused = blocks(model), bool(models.unused_parameters(model, dataset.shape))
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]  # frozen ones exchange nothing
    if spec.recompute:
        recompute(model)
    synced = spec.batch_norm == "sync" and derived.replicas > 1
    if synced:
        batch_norm.synchronise(model, dist.group.WORLD)  # type: ignore[arg-type]
    wide = [p.detach() for p in model.parameters()]
    images = _narrow(spec, model, images)
    calls, saved = _run(spec, model, (*units, *norms), images, labels)
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    for parameter, value in zip(model.parameters(), wide, strict=True):
        parameter.data, had = value, parameter.grad is not None
        parameter.grad = torch.zeros_like(value) if had else None
    return Facts(
        spec=spec, derived=derived, backend="nccl" if on_cuda(spec, spec.workers) else "gloo",
        parameters=_parameters(spec, model, units, reached), activations=saved, inputs=images.nbytes + labels.nbytes,
        norms=_synced(norms, calls[len(units) :], dtype) if synced else (), calls=tuple(c.forward for c in calls[: len(units)]),
        unused=unused, model=model, images=images,
    )  # fmt: skip


def _narrow(spec: Spec, model: nn.Module, images: Tensor) -> Tensor:
    """Weights and images in the type that forward passes compute with, where it is not the type they are kept in."""
    dtype = HALF.get(spec.precision) if spec.engine == "deepspeed" else HALF.get(spec.param_dtype)
    if dtype is None:
        return images
    norms = {p for m in model.modules() if isinstance(m, _BatchNorm) for p in m.parameters(recurse=False)}
    for parameter in model.parameters():
        if parameter not in norms:  # on CPUs batch norm takes narrow images, but no narrow weights
            parameter.data = parameter.data.to(dtype)
    return images.to(dtype)


class _Calls:
    """How often a module is called: in the forward pass; in the backward pass, to compute again; how many outputs need a gradient."""

    def __init__(self) -> None:
        self.forward = self.again = self.differentiable = 0


def _run(spec: Spec, model: nn.Module, watched: Sequence[nn.Module], images: Tensor, labels: Tensor) -> tuple[list[_Calls], int]:
    """(calls of the watched modules, bytes saved for the backward pass) of a forward and backward pass as a rank would do it."""
    calls, autocast = [_Calls() for _ in watched], spec.precision == "bf16" and spec.engine == "torch"
    backward = False

    def counting(held: _Calls) -> tuple[Callable[..., None], Callable[..., None]]:
        def entered(*_: Any) -> None:
            held.again += backward
            held.forward += not backward

        def left(module: nn.Module, args: Any, output: Any) -> None:
            held.differentiable += not backward and isinstance(output, Tensor) and output.requires_grad

        return entered, left

    with ExitStack() as hooks:
        for module, held in zip(watched, calls, strict=True):
            entered, left = counting(held)
            hooks.callback(module.register_forward_pre_hook(entered).remove)
            hooks.callback(module.register_forward_hook(left).remove)
        with saved_bytes(model) as saved, torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            outputs = model(images)
            loss = nn.functional.cross_entropy(outputs if outputs.dtype == torch.float64 else outputs.float(), labels)
        backward = True
        loss.backward()
    return calls, saved[0]


def _synced(norms: Sequence[_BatchNorm], calls: Sequence[_Calls], dtype: torch.dtype) -> tuple[Norm, ...]:
    """The norms that the forward pass reaches, with the bytes of one of their statistics."""
    width = 8 if dtype == torch.float64 else 4
    return tuple(
        Norm(norm.num_features, width, held.forward + held.again, held.differentiable)
        for norm, held in zip(norms, calls, strict=True)
        if held.forward
    )


def _parameters(spec: Spec, model: nn.Module, units: Sequence[nn.Module], reached: set[str]) -> tuple[Parameter, ...]:
    """Each parameter with what the optimizer keeps for it after a step."""
    optimizer = optim.build(spec, model.parameters())
    optimizer.step()
    place = {parameter: index for index, unit in enumerate(units) for parameter in unit.parameters()}
    return tuple(
        Parameter(
            name, tuple(p.shape), p.element_size(), p.requires_grad, name in reached, place.get(p),
            tuple((tuple(v.shape), v.element_size()) for v in optimizer.state.get(p, {}).values() if isinstance(v, Tensor)),
        )
        for name, p in model.named_parameters()
    )  # fmt: skip
