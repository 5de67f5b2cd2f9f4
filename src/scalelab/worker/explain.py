"""``scalelab explain`` in a process of its own: facts of the real model, optimizer and one micro-batch, put into the strategy's formulas.

No worker is started: a training on a thousand workers is explained on a laptop. All of it is computed on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scalelab import data, models, optim, strategies
from scalelab import spec as specs
from scalelab.batch import Derived, derive
from scalelab.comm import batch_norm
from scalelab.data import Batches, Dataset
from scalelab.measure.environment import usable_cores
from scalelab.spec import Spec
from scalelab.strategies.blocks import blocks, recompute
from scalelab.strategies.explanation import Explained, Facts, Norm, Parameter
from scalelab.worker import job
from scalelab.worker.asked import answering

Calls = list[int]
"""[times in the forward pass, times in the backward pass]"""


def explain(spec_file: str, answer_file: str) -> int:
    """Write the ``Explained`` of a spec, or {"error", "kind"}, as JSON to ``answer_file``."""
    return answering(answer_file, lambda: explained(specs.load(Path(spec_file))))


def explained(spec: Spec) -> Explained:
    """The strategy's explanation of ``spec``. Raises ScalelabError in one line."""
    derived = derive(spec, strategies.degrees(spec), usable_cores())
    kind = strategies.load(spec.strategy, spec.engine)
    optim.find(spec.optimizer)
    kind.check(spec)
    dataset = data.load(spec, lambda message: print(message, file=sys.stderr, flush=True))
    torch.set_num_threads(derived.threads)
    model = job.seeded_model(spec, dataset)
    models.check_forward(model, dataset.shape, dataset.num_classes)
    kind.check_model(spec, model)
    if spec.batch_norm == "sync":
        batch_norm.check(model)
    model_facts, data_facts = job.facts(spec, model, dataset)
    facts = gather(spec, derived, model, dataset)
    told = kind.explain(facts)
    return Explained(
        **{name: getattr(told, name) for name in told.__struct_fields__},
        strategy=spec.strategy, engine=spec.engine, workers=spec.workers, backend=facts.backend, derived=derived,
        model=model_facts, data=data_facts, total_sent=told.sent_bytes,
    )  # fmt: skip


def gather(spec: Spec, derived: Derived, model: nn.Module, dataset: Dataset) -> Facts:
    """The facts of a model: one forward and backward pass of a micro-batch, one step of the optimizer. The weights are lost."""
    dtype = job.DTYPES.get(spec.precision, torch.float32)
    samples = Batches(dataset.train, dataset.mean, dataset.std, "none", spec.seed, torch.device("cpu"), dtype)
    images, labels = samples.fetch(torch.arange(derived.micro_batch) % len(samples), 0, True)
    model = model.to(dtype).train()
    wide = [p.detach().clone() for p in model.parameters()]
    units, unused = blocks(model), bool(models.unused_parameters(model, dataset.shape))
    calls, norms, saved = _run(spec, derived, model, units, images, labels)
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    for parameter, value in zip(model.parameters(), wide, strict=True):
        parameter.data = value
        parameter.grad = None if parameter.grad is None else torch.zeros_like(value)
    return Facts(
        spec=spec, derived=derived, backend="nccl" if spec.device == "cuda" else "gloo",
        parameters=_parameters(spec, model, units, reached), norms=norms, activations=saved,
        calls=tuple(c[0] for c in calls), unused=unused, model=model, images=images,
    )  # fmt: skip


def _run(
    spec: Spec, derived: Derived, model: nn.Module, units: Sequence[nn.Module], images: Tensor, labels: Tensor
) -> tuple[list[Calls], tuple[Norm, ...], int]:
    """(calls of each unit, synchronised norms, bytes saved for backward) of a forward and backward pass as a rank would do it."""
    synced = spec.batch_norm == "sync" and derived.replicas > 1
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)] if synced else []
    if spec.recompute:
        recompute(model)
    images = _narrow(spec, model, images)
    passed = {"backward": False}
    with _alone() if synced else nullcontext():
        if synced:
            batch_norm.synchronise(model, dist.group.WORLD)  # type: ignore[arg-type]
        calls, (normed, back) = [_count(unit, passed) for unit in units], (
            [_count(layer, passed) for layer in layers], [_count_backward(layer, passed) for layer in layers],
        )  # fmt: skip
        mixed = spec.precision == "bf16" and spec.engine == "torch"
        with saved_bytes(model) as saved, torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
            outputs = model(images)
            loss = nn.functional.cross_entropy(outputs.to(torch.promote_types(outputs.dtype, torch.float32)), labels)
        passed["backward"] = True
        loss.backward()
    norms = tuple(
        Norm(layer.num_features, 8 if spec.precision == "fp64" else 4, sum(n), b[0])
        for layer, n, b in zip(layers, normed, back, strict=True)
        if n[0]
    )
    return calls, norms, saved[0]


def _narrow(spec: Spec, model: nn.Module, images: Tensor) -> Tensor:
    """Weights and images in the type that forward passes compute with, where it is not the type they are kept in."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = half.get(spec.precision) if spec.engine == "deepspeed" else half.get(spec.param_dtype)
    if dtype is None:
        return images
    norms = {p for m in model.modules() if isinstance(m, _BatchNorm) for p in m.parameters(recurse=False)}
    for parameter in model.parameters():
        if parameter not in norms:  # on CPUs batch norm takes narrow images, but no narrow weights
            parameter.data = parameter.data.to(dtype)
    return images.to(dtype)


@contextmanager
def _alone() -> Iterator[None]:
    """A process group of this process alone, in which the synchronised batch norms run."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[list[int]]:
    """Autograd's saved tensors are watched inside; afterwards: bytes of their storages that hold no parameter or buffer of ``model``."""
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    held: dict[int, int] = {}
    result = [0]

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield result
    result[0] = sum(held.values())


def _count(module: nn.Module, passed: dict[str, bool]) -> Calls:
    """How often ``module`` is called from now on, before and after ``passed["backward"]``."""
    calls = [0, 0]

    def called(*_: Any) -> None:
        calls[passed["backward"]] += 1

    module.register_forward_pre_hook(called)
    return calls


def _count_backward(module: nn.Module, passed: dict[str, bool]) -> Calls:
    """How many of the forward pass's calls of ``module`` gave a value that the backward pass comes back to."""
    calls = [0]

    def called(module: nn.Module, args: Any, output: Tensor) -> None:
        calls[0] += not passed["backward"] and output.requires_grad

    module.register_forward_hook(called)
    return calls


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
