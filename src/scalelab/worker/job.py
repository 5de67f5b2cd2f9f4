"""From a spec to everything that a rank needs to train: data, model, optimizer, strategy, plan."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from scalelab import data, models, optim, strategies
from scalelab.batch import MEASURED, Derived, decoding, norm_slices
from scalelab.comm import batch_norm
from scalelab.comm.world import World, subgroup
from scalelab.data import Batches, Dataset
from scalelab.errors import ScalelabError, unknown
from scalelab.limits import local_workers
from scalelab.measure import flops, memory
from scalelab.measure.environment import usable_cores
from scalelab.optim.schedules import SCHEDULES
from scalelab.record.schema import DataFacts, ModelFacts
from scalelab.spec import Spec
from scalelab.strategies.base import Batch, Recipe, Strategy
from scalelab.strategies.blocks import recomputable
from scalelab.worker import alike, initial, profiling, resuming, sharing
from scalelab.worker import plan as planning
from scalelab.worker.plan import Plan

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}
"""of weights and images; bf16 computes under autocast with float32 weights"""


@dataclass(frozen=True)
class Job:
    """What a rank trains."""

    spec: Spec
    derived: Derived
    world: World
    dataset: Dataset
    plan: Plan
    train: Batches
    test: Batches
    strategy: Strategy
    baseline: int
    """bytes of this process before the model was built"""

    def batches(self, start: int, stop: int) -> Iterator[list[Batch]]:
        """This replica's micro-batches for each step in [start, stop), all of one epoch."""
        epoch = self.plan.epoch_of(start)
        shares = planning.shares(self.plan, self.spec, self.derived, self.strategy.replica, start, stop)
        if self.strategy.takes_images:
            yield from self.train.steps(shares, epoch)
        else:
            yield from ([self.train.fetch_labels(indices) for indices in share] for share in shares)


def prepare(spec: Spec, derived: Derived, say: data.Progress) -> tuple[ModelFacts, DataFacts, Plan]:
    """Find out, before anything starts, whether the spec can be carried out. Raises ScalelabError in one line."""
    strategy = strategies.load(spec.strategy, spec.engine)
    optim.find(spec.optimizer)
    if spec.schedule not in SCHEDULES:
        raise unknown("schedule", spec.schedule, SCHEDULES)
    here = local_workers(spec.workers)
    if spec.device == "cuda" and torch.cuda.device_count() < here:
        raise ScalelabError(
            f"--device cuda: {here} workers need as many GPUs, this host has {torch.cuda.device_count()}; use --device cpu"
        )
    strategy.check(spec)
    dataset = data.load(spec, say)
    plan = planning.make(spec, derived, len(dataset.train))
    profiling.check(spec, plan.total_steps)
    if spec.resume is not None:
        resuming.check(Path(spec.resume), spec, derived, plan)
    torch.set_num_threads(derived.threads)
    model, told = begun_model(spec, dataset)
    models.check_forward(model, dataset.shape, dataset.num_classes)
    if spec.resume is not None:
        resuming.check_model(Path(spec.resume), model)
    strategy.check_model(spec, model)
    strategy.check_shape(spec, model, dataset.shape)
    if spec.recompute and not recomputable(model):
        raise ScalelabError(f"--recompute: model '{spec.model}' has no module made of others that could be computed again as one")
    if spec.batch_norm == "sync":
        batch_norm.check(model)
    optim.build(spec, model.parameters())
    found, data_facts = facts(spec, model, dataset)
    return msgspec.structs.replace(found, notes=[*initial.origin(spec), *told]), data_facts, plan


def facts(spec: Spec, model: nn.Module, dataset: Dataset) -> tuple[ModelFacts, DataFacts]:
    """What is trained, and on what, for the record."""
    data_facts = DataFacts(
        name=dataset.name,
        train=len(dataset.train),
        test=len(dataset.test),
        classes=list(dataset.class_names),
        shape=list(dataset.shape),
        streamed=dataset.streamed,
        notes=list(dataset.notes),
    )
    return model_facts(spec, model, dataset.shape), data_facts


def model_facts(spec: Spec, model: nn.Module, shape: tuple[int, ...]) -> ModelFacts:
    """What a model is, and what training it on one image of ``shape`` takes."""
    parameters = [(p.numel(), p.element_size(), p.requires_grad) for p in model.parameters()]
    return ModelFacts(
        name=spec.model,
        parameters=sum(count for count, _, _ in parameters),
        trained=sum(count for count, _, trained in parameters if trained),
        bytes=sum(count * width for count, width, _ in parameters),
        flops_per_image=flops.per_image(model, shape),
    )


def build(spec: Spec, derived: Derived, world: World) -> Job:
    """Everything in place on this rank, weights equal on all ranks."""
    dataset = data.load(spec, lambda _: None)
    derived = decoding(spec, derived, usable_cores(), dataset.streamed, local_workers(spec.workers))
    alike.check(dataset, world, derived.data_threads)
    plan = planning.make(spec, derived, len(dataset.train))
    dtype = DTYPES[spec.precision]
    kind = strategies.load(spec.strategy, spec.engine)
    weights_last, images_last = channels_last(spec, kind, world.device, world.mixed)

    def batches(split: data.Split, augment: str) -> Batches:
        return Batches(
            split,
            dataset.mean,
            dataset.std,
            augment,
            spec.seed,
            world.device,
            dtype,
            images_last,
            dataset.resize,
            derived.data_threads,
        )

    train, test = batches(dataset.train, data.augmentation(spec, dataset)), batches(dataset.test, "none")
    if spec.shares == MEASURED and world.replicas > 1:
        sample = train.fetch(torch.arange(derived.micro_batch), epoch=0, train=True)
        alone = seeded_model(spec, dataset).to(world.device, dtype).train()
        derived, world = sharing.measured(alone, sample, derived, world)
    baseline = memory.mark(world.device)

    plain: list[nn.Module] = []

    def model() -> nn.Module:
        made = seeded_model(spec, dataset).to(world.device, dtype)
        if kind.asks_unused:
            plain.append(_copy(made) or seeded_model(spec, dataset))
        if weights_last:
            made = made.to(memory_format=torch.channels_last)
        elif not kind.channels_last:
            for parameter in made.parameters():  # a user's model may have laid them out so, or otherwise
                parameter.data = parameter.data.contiguous()
        if spec.batch_norm == "sync" and world.replicas > 1:
            batch_norm.synchronise(made, subgroup(world.across_ranks))
        if spec.norm_slices > 1:
            batch_norm.per_replica(made, norm_slices(spec, _common_micro_batch(derived)))
        return made.train()

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels, label_smoothing=spec.label_smoothing)

    def unused() -> bool:
        assert plain, "asked after the model was made"
        return bool(models.unused_parameters(plain.pop(), dataset.shape))

    recipe = Recipe(model, lambda params: optim.build(spec, params), loss, unused, dataset.shape, dataset.num_classes)
    strategy = kind(recipe, world, spec)
    return Job(spec, derived, world, dataset, plan, train, test, strategy, baseline)


def seeded_model(spec: Spec, dataset: Dataset) -> nn.Module:
    """The model with the weights of ``spec.seed``, or of ``spec.weights``, the same on every rank."""
    return begun_model(spec, dataset)[0]


def begun_model(spec: Spec, dataset: Dataset) -> tuple[nn.Module, list[str]]:
    """``seeded_model``, and what a reader of the record should know of it."""
    torch.manual_seed(spec.seed)
    model = models.build(spec, dataset.num_classes, dataset.shape)
    told = initial.begin(spec, model, dataset.num_classes, dataset.shape)
    if not spec.dropout:
        _without_dropout(model)
    if spec.smooth:
        models.smooth(model)
    return model, told


def _common_micro_batch(derived: Derived) -> int:
    """The largest that divides the micro-batches of all parts of a ``--batch-schedule``: what batch norm's slices are in proportion to."""
    return math.gcd(*(segment.micro_batch for segment in derived.segments)) if derived.segments else derived.micro_batch


def _copy(model: nn.Module) -> nn.Module | None:
    """Another one like ``model``; None where something that the user put into it can't be copied."""
    try:
        return copy.deepcopy(model)
    except Exception:
        return None


def _without_dropout(model: nn.Module) -> None:
    """Set dropout and stochastic depth to 0: their rate is ``p`` in torch's modules, ``drop_prob`` or ``drop_rate`` in timm's."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0  # type: ignore[assignment]
        for rate in ("drop_prob", "drop_rate"):
            if hasattr(module, rate):
                setattr(module, rate, 0.0)
        if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
            module.dropout = 0.0


def channels_last(spec: Spec, kind: type[Strategy], device: torch.device, mixed: bool = False) -> tuple[bool, bool]:
    """Whether (weights, images) lie channels-last. ``mixed``: on other ranks' devices it is another; weights must lie alike on all.

    auto: on the CPU images always do, and weights wherever the strategy can keep them so (basic_cnn: 1.8 times the images/s, most of it
    by the images alone; resnet18: 1.1 times); on CUDA both with bf16 (tensor cores).
    """
    if spec.channels_last != "auto":
        return spec.channels_last == "on", spec.channels_last == "on"
    images = device.type == "cpu" or spec.precision == "bf16"
    return images and kind.channels_last and not mixed, images
