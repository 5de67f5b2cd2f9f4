"""The contract of a strategy: what one rank does in an optimizer step, and how its state leaves and enters.

The promise, tested over the registry: from the same seed and the same global batches, its losses and its final
parameters equal those of ``single``. A strategy file starts with what moves between ranks, when, and how many bytes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from scalelab.comm.profiled import Timed, collective_seconds
from scalelab.comm.world import World
from scalelab.errors import NotApplicable
from scalelab.optim import OPTIMIZERS
from scalelab.spec import HELP, PARALLEL, Spec
from scalelab.strategies.blocks import recompute
from scalelab.strategies.formulas.explanation import Explanation, Facts
from scalelab.strategies.parts import held_bytes, keep_slots, local_part, part, whole

OPTIONS = {name: default for name, default in PARALLEL.items() if name not in ("stages", "shard", "recompute")}
"""what only some strategies understand, with the value that asks for nothing; the degrees are checked where they are computed"""

Batch = tuple[Tensor, Tensor]
"""(images [B, C, H, W] or clips [B, T, C, H, W], labels [B])"""


@dataclass(frozen=True)
class Recipe:
    """How each rank makes its parts. ``model`` gives the same weights on every rank, on the rank's device."""

    model: Callable[[], nn.Module]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    loss: Callable[[Tensor, Tensor], Tensor]
    """(outputs [B, classes], labels [B]) → mean over the batch"""
    unused: Callable[[], bool]
    """whether some trainable parameters of the model get no gradient, now and then or always; for those that ``asks_unused``, once"""
    shape: tuple[int, ...]
    """of a sample: (C, H, W) of an image, (T, C, H, W) of a clip"""
    classes: int


class Strategy(ABC):
    """One rank's part of a training. Subclasses say how the model and the optimizer are wrapped."""

    options: ClassVar[frozenset[str]] = frozenset()
    """fields of the spec's group "parallel" that the strategy understands, besides its degrees and ``recompute``"""
    shards_tensors: ClassVar[bool] = False
    """whether an optimizer sees slices of tensors: those that look at whole ones are refused then"""
    channels_last: ClassVar[bool] = True
    """whether parameters may lie channels-last in memory"""
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "bf16", "fp64")
    batch_may_change: ClassVar[bool] = True
    """whether steps may have different batches (``--batch-schedule``)"""
    asks_unused: ClassVar[bool] = False
    """whether it asks the recipe for parameters without a gradient"""
    not_silenced: ClassVar[str] = ""
    """why a step with local copies in place of collectives (it measures exposed communication) would be other work; empty: it is not"""
    method: ClassVar[Mapping[str, str]] = {}
    """figures that are measured otherwise than for other strategies, and how"""

    def __init__(self, recipe: Recipe, world: World, spec: Spec) -> None:
        self.world, self.spec, self.loss, self.recipe = world, spec, recipe.loss, recipe
        scale = world.share * world.replicas  # uneven shares: a plain mean over the replicas is then right
        self.loss_scale = 1.0 if math.isclose(scale, 1.0) else scale  # 49 · (1/49) is not 1
        self.loss_weight = world.share if world.last_stage else 0.0  # the global loss is the sum over ranks of weight x loss
        self.module = self.wrap(self.build())
        self.optimizer = self.wrap_optimizer(recipe.optimizer)
        if spec.compile:
            self.module.compile()

    def build(self) -> nn.Module:
        """The model, the same on every rank, before it is wrapped."""
        model = self.recipe.model()
        return recompute(model) if self.spec.recompute else model

    @property
    def replica(self) -> int:
        """Which share of each global batch this rank trains on."""
        return self.world.replica

    @property
    def takes_images(self) -> bool:
        """Whether this rank looks at a step's images: a stage in the middle needs only how many there are."""
        return True

    @classmethod
    def check(cls, spec: Spec) -> None:
        """Refuse, before anything starts, what the strategy can't do. Raises NotApplicable."""
        for name, default in OPTIONS.items():
            if name not in cls.options and getattr(spec, name) != default:
                flag = f"--{name.replace('_', '-')} {getattr(spec, name)}"
                raise NotApplicable(f"{flag}: --strategy {spec.strategy} with {spec.engine} has no such option ({HELP[name]})")
        if spec.precision not in cls.precisions:
            raise NotApplicable(
                f"--precision {spec.precision}: --strategy {spec.strategy} --engine {spec.engine} has {', '.join(cls.precisions)}"
            )
        if spec.batch_schedule is not None and not cls.batch_may_change:
            raise NotApplicable(
                f"--batch-schedule {spec.batch_schedule}: --strategy {spec.strategy} --engine {spec.engine} is set up for one batch; "
                "use --engine torch"
            )
        if cls.shards_tensors and not OPTIMIZERS[spec.optimizer].elementwise:
            raise NotApplicable(
                f"--optimizer {spec.optimizer} looks at whole tensors, which --strategy {spec.strategy} cuts into shards; use ddp or zero1"
            )
        if spec.channels_last == "on" and not cls.channels_last:
            raise NotApplicable(f"--channels-last on: --strategy {spec.strategy} can't keep that layout; use auto or off")

    @classmethod
    def check_model(cls, spec: Spec, model: nn.Module) -> None:
        """Refuse, before anything starts, a model that the strategy can't take. Raises NotApplicable."""
        return

    @classmethod
    def check_shape(cls, spec: Spec, model: nn.Module, shape: tuple[int, ...]) -> None:
        """The same, where samples of ``shape`` are needed to tell. Raises NotApplicable."""
        return

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        """What each rank holds and sends, by formula. Raises NotApplicable where the strategy does not say."""
        raise NotApplicable(f"--strategy {facts.spec.strategy} has no formulas: give its class a classmethod explain(facts)")

    @abstractmethod
    def wrap(self, model: nn.Module) -> nn.Module:
        """The module whose forward and backward this rank runs."""

    def wrap_optimizer(self, make: Callable[[Iterable[nn.Parameter]], Optimizer]) -> Optimizer:
        """The optimizer over the wrapped module's parameters."""
        return make(self.module.parameters())

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Around each micro-batch; ``last`` when its gradients complete the step's."""
        return nullcontext()

    @property
    def local_optimizer(self) -> Optimizer:
        """The optimizer that holds this rank's state."""
        return self.optimizer

    def step(self, micro_batches: Sequence[Batch]) -> Tensor:
        """Exactly one optimizer step on this rank's share of the global batch.

        Returns the mean loss of the share, a 0-d tensor on the device, detached (nothing waits for it here); 0 on a rank that has none.
        """
        count = len(micro_batches)
        divisor = count / self.loss_scale
        total: Tensor | None = None
        for index, (images, labels) in enumerate(micro_batches):
            with self.accumulating(index == count - 1):
                with self.autocast():
                    loss = self.loss(self.module(images), labels)
                (loss / divisor if divisor != 1 else loss).backward()
            total = loss.detach() if total is None else total + loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        assert total is not None, "a step has at least one micro-batch"
        return total / count

    def forward(self, images: Tensor) -> Tensor:
        """Outputs for evaluation, [B, classes]; every rank must call it equally often."""
        with torch.no_grad(), self.autocast():
            out: Tensor = self.evaluated(images)
            return out

    @property
    def evaluated(self) -> nn.Module:
        """The module that ``forward`` runs: without the wrapper's training machinery where that is possible."""
        return self.module

    def settle(self) -> None:
        """Bring the parameters back to how they lie between steps, after forward passes without a backward."""
        return

    @property
    def period(self) -> int:
        """Steps from one exchange between the replicas to the next."""
        return 1

    def probing(self) -> AbstractContextManager[None]:
        """Inside of it every step exchanges, whatever the period: what probes of communication run in."""
        return nullcontext()

    def collective_seconds(self, step: Callable[[], None], count: int) -> list[Timed]:
        """When at least one collective was under way, for each of ``count`` calls of ``step``. A collective."""
        return collective_seconds(step, count)

    def notes(self) -> list[str]:
        """What a reader of the record should know of how this training is spread, such as where a model was cut."""
        return []

    def unite(self) -> None:
        """Make the ranks one model again: called after the last step of an epoch, before evaluation and checkpoint."""
        return

    def close(self) -> None:
        """Let go of what the strategy brought up: called on every rank at the end of a run that went well, before they part."""
        return

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that this rank holds (a part of), by the model's own names."""
        return self.evaluated.named_parameters()

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The buffers that this rank holds, by the model's own names."""
        return self.evaluated.named_buffers()

    def weights(self) -> list[Tensor]:
        """What this rank holds of the parameters: whole tensors, or its shards of them."""
        return [local_part(parameter.detach()) for parameter in self.module.parameters()]

    def autocast(self) -> AbstractContextManager[None]:
        """bf16 where the spec says so. The weights stay float32."""
        if self.spec.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16)

    def state(self) -> dict[str, Any]:
        """The unsharded training state: ``model`` {name: tensor} and ``optimizer`` {parameter's name: {slot: value}}.

        Every rank calls it; the first one gets it whole, the others may get less.
        """
        model = get_model_state_dict(self.module, options=StateDictOptions(full_state_dict=True))
        return {"model": model, "optimizer": self.optimizer_state()}

    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        """The optimizer's slots by the parameters' names, unsharded. A parameter that never had a gradient has none."""
        return {
            name: {slot: whole(value) for slot, value in self.optimizer.state[parameter].items()}
            for name, parameter in self.named_parameters()
            if parameter in self.optimizer.state
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state that any strategy gave at any world size. Every rank passes the whole state.

        Slots come from the state; learning rate, momentum and the like are those of this run's spec.
        """
        self.load_model(state["model"])
        parameters = dict(self.named_parameters())
        places = {parameter: place for place, parameter in enumerate(parameters.values())}
        groups = [{**group, "params": [places[p] for p in group["params"]]} for group in self.optimizer.param_groups]
        slots = {
            places[parameters[name]]: {slot: part(value, parameters[name]) for slot, value in held.items()}
            for name, held in state["optimizer"].items()
            if name in parameters
        }
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})

    def load_model(self, model: dict[str, Any]) -> None:
        """Take up the unsharded parameters and buffers, {name: tensor}."""
        set_model_state_dict(self.module, model, options=StateDictOptions(full_state_dict=True))

    def snapshot(self) -> Callable[[], None]:
        """Copy this rank's training state; the returned function restores it bit for bit."""
        values = [*self.module.parameters(), *self.module.buffers()]
        kept = [local_part(value).detach().clone() for value in values]
        restore_slots = keep_slots(self.local_optimizer)

        def restore() -> None:
            with torch.no_grad():
                for value, copy in zip(values, kept, strict=True):
                    local_part(value).copy_(copy)
            restore_slots()

        return restore

    def replicated(self) -> list[Tensor]:
        """This rank's copies of tensors that must be equal on every rank: where they differ, ranks have drifted apart."""
        return [p.detach() for p in self.module.parameters() if not isinstance(p, DTensor)]

    def memory(self) -> dict[str, int]:
        """Bytes that this rank holds for ``parameters``, ``gradients`` (while they exist) and ``optimizer`` state."""
        parameters = list(self.module.parameters())
        held = sum(held_bytes(p) for p in parameters)
        state = sum(held_bytes(v) for slot in self.local_optimizer.state.values() for v in slot.values() if isinstance(v, Tensor))
        return {"parameters": held, "gradients": sum(held_bytes(p) for p in parameters if p.requires_grad), "optimizer": state}
