"""DeepSpeed's ZeRO (Rajbhandari et al. 2020): stage 0 is ddp, stages 1 to 3 shard optimizer state, gradients and parameters.

moves: gradients; from stage 1 on also the parameters
when:  gradients of ddp and zero1 after the last micro-batch's backward pass, of zero2 and zero3 in buckets during each; parameters after
       the optimizer step (zero1, zero2), or before each forward pass, kept until its backward pass ends (zero3, up to 1e9 elements)
bytes: P being the gradients' bytes, each of n ranks sends 2(n-1)/n · P for the gradients, all-reduced (zero3 reduce-scatters: half of it,
       but with gloo as much), zero2 and zero3 at each micro-batch; and (n-1)/n · P for the parameters, zero3 at each micro-batch
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from scalelab.comm import batch_norm
from scalelab.errors import NotApplicable
from scalelab.spec import Spec
from scalelab.strategies.base import Batch, Strategy
from scalelab.strategies.deepspeed_engine import masters, runtime, starting
from scalelab.strategies.formulas import deepspeed as formulas
from scalelab.strategies.formulas.explanation import Explanation, Facts
from scalelab.strategies.parts import keep_slots

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""of the weights that forward passes compute with, by ``--precision``"""


class DDP(Strategy):
    """ZeRO stage 0. The spec's optimizer is the one used: DeepSpeed gets it as the client's."""

    channels_last: ClassVar[bool] = False  # its broadcast of the first weights views them as bytes
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "bf16", "fp16")
    options: ClassVar[frozenset[str]] = frozenset({"deepspeed_config"})
    offloads: ClassVar[tuple[str, ...]] = ("none",)
    stage: ClassVar[int] = 0
    batch_may_change: ClassVar[bool] = False  # its configuration holds the micro-batches of a step

    optimizer: Optimizer

    @classmethod
    def check(cls, spec: Spec) -> None:
        super().check(spec)
        if spec.offload not in cls.offloads:
            raise NotApplicable(
                f"--offload {spec.offload}: --strategy {spec.strategy} has {', '.join(cls.offloads)}; all needs zero3"
            )
        starting.check(spec)

    @classmethod
    def check_shape(cls, spec: Spec, model: nn.Module, shape: tuple[int, ...]) -> None:
        starting.check_unused(spec, model, shape)

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        return formulas.explain(facts, cls.stage)

    def wrap(self, model: nn.Module) -> nn.Module:
        return (
            model if self.spec.precision == "fp32" else batch_norm.widen(model)
        )  # torch's own takes no half weights with wide buffers

    def wrap_optimizer(self, make: Callable[[Iterable[nn.Parameter]], Optimizer]) -> Optimizer:
        optimizer = make([p for p in self.module.parameters() if p.requires_grad])
        self.dtype = DTYPES[self.spec.precision]
        self.engine = starting.initialize(self.module, optimizer, self.spec, self.world.device)
        self.parts = masters.parts(self.module, self.engine.optimizer, self.stage)
        self.reached = starting.Reached(self.module)
        return optimizer

    def step(self, micro_batches: Sequence[Batch]) -> Tensor:
        losses = []
        for index, (images, labels) in enumerate(micro_batches):
            loss = self.loss(self.engine(images.to(self.dtype)).float(), labels)
            self.engine.backward(loss * self.loss_scale if self.loss_scale != 1 else loss)
            losses.append(loss.detach())
            if index == len(micro_batches) - 1:
                self.reached.all_or_raise()
            self.engine.step()  # DeepSpeed counts the micro-batches: all but the last only accumulate
        return torch.stack(losses).mean()

    def autocast(self) -> AbstractContextManager[None]:
        return nullcontext()  # the weights themselves are bf16 or fp16

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = self.engine(images.to(self.dtype))
            return out.float()

    def state(self) -> dict[str, Any]:
        whole = {part.name: part.whole(part.flat) for part in self.parts}
        names = {id(p): name for name, p in self.module.named_parameters()}
        model = {}
        for name, value in self.module.state_dict(keep_vars=True).items():  # with both names of tied weights
            first = names.get(id(value))
            model[name] = whole[first] if first in whole else self.working(value)
        return {"model": model, "optimizer": masters.slots(self.parts, self.optimizer)}

    def load(self, state: dict[str, Any]) -> None:
        held = {part.name: part for part in self.parts}
        for name, parameter in self.module.named_parameters():
            value = state["model"][name].to(self.world.device)
            self.set_working(parameter, value)
            if name in held:
                held[name].fill(held[name].flat, value)
        for name, buffer in self.module.named_buffers():
            if name in state["model"]:
                buffer.copy_(state["model"][name])
        masters.load_slots(self.parts, self.optimizer, state["optimizer"])

    def working(self, value: Tensor) -> Tensor:
        """The whole of a parameter or buffer that forward passes compute with. A collective."""
        return value.detach()

    def set_working(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Set a parameter that forward passes compute with. A collective."""
        parameter.data.copy_(value)

    def release(self) -> None:
        """Let go of copies of parameters that other ranks hold the shards of."""
        return

    def local(self) -> Iterator[tuple[str, Tensor]]:
        """What this rank holds of the parameters that forward passes compute with."""
        for name, parameter in self.module.named_parameters():
            yield name, parameter.data

    def snapshot(self) -> Callable[[], None]:
        flats = {id(part.flat): part.flat for part in self.parts}
        values = [*(value for _, value in self.local()), *self.module.buffers(), *flats.values()]
        kept = [value.detach().clone() for value in values]
        restore_slots = keep_slots(self.optimizer)
        scaler = getattr(self.engine.optimizer, "loss_scaler", None)
        scaling = dict(vars(scaler)) if scaler is not None else {}

        def restore() -> None:
            with torch.no_grad():
                for value, copy in zip(values, kept, strict=True):
                    value.detach().copy_(copy)
            restore_slots()
            if scaler is not None:
                vars(scaler).update(scaling)
            self.release()

        return restore

    def weights(self) -> list[Tensor]:
        return [value for _, value in self.local()]

    def replicated(self) -> list[Tensor]:
        return self.weights()

    def memory(self) -> dict[str, int]:
        flats = {id(part.flat): part.flat for part in self.parts}
        local = [value for _, value in self.local()]
        working = {value.data_ptr() for value in local}
        masters = [flat for flat in flats.values() if flat.data_ptr() not in working]
        slots = [v for held in self.optimizer.state.values() for v in held.values() if isinstance(v, Tensor)]
        reduced = flats.values() if self.stage > 1 else [p for p in self.module.parameters() if p.requires_grad]
        return {
            "parameters": sum(value.nbytes for value in local),
            "gradients": sum(value.numel() for value in reduced) * self.dtype.itemsize,
            "optimizer": sum(value.nbytes for value in (*masters, *slots)),
        }


class Zero1(DDP):
    """Optimizer state and float32 masters sharded, in ranges of one flat tensor."""

    shards_tensors: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = frozenset({"deepspeed_config", "offload"})
    offloads: ClassVar[tuple[str, ...]] = ("none", "optimizer")
    stage: ClassVar[int] = 1


class Zero2(Zero1):
    """And the gradients."""

    stage: ClassVar[int] = 2


class Zero3(Zero1):
    """And the parameters."""

    offloads: ClassVar[tuple[str, ...]] = ("none", "optimizer", "all")
    stage: ClassVar[int] = 3

    def working(self, value: Tensor) -> Tensor:
        if not hasattr(value, "ds_id"):
            return value.detach()
        with runtime.start(self.world.device).zero.GatheredParameters([value]):
            return value.detach().clone()

    def set_working(self, parameter: nn.Parameter, value: Tensor) -> None:
        with runtime.start(self.world.device).zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(value)

    def local(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.module.named_parameters():
            yield name, parameter.ds_tensor.data  # type: ignore[attr-defined]

    def weights(self) -> list[Tensor]:
        return [shard.view(-1)[: max(0, _left(p))] for (_, shard), p in zip(self.local(), self.module.parameters(), strict=True)]

    def release(self) -> None:
        whole = [p for p in self.module.parameters() if p.data.numel()]
        if whole:
            whole[0].partition(param_list=whole, has_been_updated=False)  # type: ignore[attr-defined]

    def settle(self) -> None:
        self.release()
        if small := self.engine.optimizer.persistent_parameters:
            small[0].all_gather(small)

    def replicated(self) -> list[Tensor]:
        return []


def _left(parameter: Any) -> int:
    """Elements of a parameter from this rank's shard on. Where the shard has more, the rest of it is uninitialised memory."""
    size: int = parameter.ds_tensor.numel()
    return int(parameter.ds_numel) - size * dist.get_rank(parameter.ds_process_group)
