"""What the strategies that cut a model into stages share: the cut, a rank's stages, evaluation, gradients over replicas, state."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from scalelab import strategies
from scalelab.batch import derive
from scalelab.comm.averaging import average_gradients
from scalelab.comm.world import World, merge_stages, seed
from scalelab.errors import NotApplicable
from scalelab.models import evaluating
from scalelab.spec import Spec
from scalelab.strategies.base import Recipe, Strategy
from scalelab.strategies.blocks import layers
from scalelab.strategies.stages import cut, tracing
from scalelab.strategies.stages.cut import Cut, Stage, Traces
from scalelab.strategies.stages.recording import Watched
from scalelab.strategies.stages.relay import Piece, Relay
from scalelab.strategies.stages.timing import segment_seconds

Shape = tuple[int, ...]
GOLDEN = 0x9E3779B97F4A7C15


class Staged(Strategy):
    """One rank's stages of a model. Rank s of P in its replica has the stages s, s + P, …: ``chunks(spec)`` of them.

    Stages are not wrapped: gradients are averaged over the replicas when all micro-batches are through. With one stage nothing else is.
    """

    options: ClassVar[frozenset[str]] = frozenset({"split"})
    not_silenced: ClassVar[str] = "not probed: a stage waits for what its neighbours compute, and no local copy stands for that"

    split: list[str]
    """the places at which a new stage begins"""
    relay: Relay | None = None

    def __init__(self, recipe: Recipe, world: World, spec: Spec) -> None:
        super().__init__(recipe, world, spec)
        if spec.compile:
            for graph in (graph for stage in self.stages for graph in stage.graphs.values()):
                graph.compile()

    @classmethod
    def chunks(cls, spec: Spec) -> int:
        """Stages that each rank has."""
        return 1

    @classmethod
    def check_shape(cls, spec: Spec, model: nn.Module, shape: Shape) -> None:
        """Refuse a model that can't be cut into so many stages. Raises NotApplicable."""
        workers, chunks = strategies.degrees(spec)[2], cls.chunks(spec)
        if workers == 1:
            return
        name = f"--strategy {spec.strategy}: model '{spec.model}'"
        if spec.recompute and not layers(model):
            raise NotApplicable(
                f"--recompute: {name} has no module made of others: only such ones are computed again within a stage; leave it out"
            )
        try:
            cuts = _checked(model, tracing.trace(model, closed=layers(model) if spec.recompute else ()), shape)
        except tracing.Untraceable as error:
            raise NotApplicable(f"{name} can't be split: torch.fx can't follow its forward ({error}); use ddp or zero3") from None
        if len(cuts) + 1 < workers * chunks:
            each = f" with {chunks} on each worker" if chunks > 1 else ""
            most = (
                f"at most into {(len(cuts) + 1) // chunks}; use --stages {(len(cuts) + 1) // chunks} or fewer"
                if cuts
                else "nowhere does a single tensor pass on: use ddp or zero3"
            )
            raise NotApplicable(f"{name} can't be cut into {workers} stages{each}, {most}")
        if spec.split is not None:
            cut.at(spec.split, cuts, workers * chunks, model)

    def wrap(self, model: nn.Module) -> nn.Module:
        self.split = []
        if self.world.stages == 1:
            return model
        traces = tracing.trace(model)
        cuts, _ = cut.passing(model, traces, _images(model, 2, self.recipe.shape))
        total = self.chunks(self.spec) * self.world.stages
        split = self.spec.split
        chosen = self._measured(model, traces, cuts, total) if split is None else cut.at(split, cuts, total, model)
        self.split = [cuts[index].name for index in chosen]
        if self.world.first:
            print(*self.notes(), sep="\n", file=sys.stderr)
        stages = cut.build(model, traces, [cuts[index] for index in chosen])
        mine = nn.ModuleList(stages[self.world.stage :: self.world.stages])
        self.relay = Relay(self.world, [stage for stage in mine if isinstance(stage, Stage)])
        return mine

    def _measured(self, model: nn.Module, traces: Traces, cuts: list[Cut], total: int) -> list[int]:
        """The cuts that give stages of equal time, as the first rank measures it for all."""
        chosen = torch.zeros(total - 1, dtype=torch.int64, device=self.world.device)
        if self.world.first:
            micro_batch = derive(self.spec, (self.world.replicas, 1, self.world.stages), 1).micro_batch
            with evaluating(model), self.autocast():
                seconds = segment_seconds(traces[False], cuts, _images(model, micro_batch, self.recipe.shape))
            chosen.copy_(torch.tensor(cut.balanced(seconds, total)))
        dist.broadcast(chosen, 0)
        return [int(index) for index in chosen]

    def wrap_optimizer(self, make: Callable[[Iterable[nn.Parameter]], Optimizer]) -> Optimizer:
        held = list(self.module.parameters())
        return make(held or [nn.Parameter(torch.empty(0, device=self.world.device))])  # a stage may have none, an optimizer must

    @property
    def takes_images(self) -> bool:
        return self.world.stage == 0

    def notes(self) -> list[str]:
        return [f"{len(self.split) + 1} stages; a new one begins at {', '.join(self.split)}"] if self.split else []

    @property
    def stages(self) -> list[Stage]:
        """This rank's, in order; none where the model is whole."""
        return [] if self.relay is None else list(self.relay.stages)

    def pieces(self, images: Tensor) -> list[Piece]:
        """This rank's stages for batches of this size. Every rank calls it, for the first time together."""
        assert self.relay is not None, "the model is whole"
        if (known := self.relay.known.get(len(images))) is not None:  # no walk over all modules in a step
            return known
        with evaluating(self.module), self.autocast():
            return self.relay.pieces(images)

    def forward(self, images: Tensor) -> Tensor:
        if self.relay is None:
            return super().forward(images)
        result = torch.zeros(len(images), self.recipe.classes, device=self.world.device)
        pieces = self.pieces(images)
        with torch.no_grad(), self.autocast():
            for piece in pieces:
                result_or_part = piece(self.relay.receive(piece) if piece.incoming else images)
                if piece.outgoing:
                    self.relay.send(piece, result_or_part)
                else:
                    result = result_or_part
        return result

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Where the model is whole: the plain step, its gradients averaged at the end."""
        yield
        if last:
            self.average()

    def average(self) -> None:
        """Make the gradients the mean over the replicas."""
        average_gradients(self.module.parameters(), self.world.across)

    def finish(self) -> None:
        """The end of a step, when all micro-batches have been backward through this rank."""
        self.average()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @classmethod
    def least_bubble(cls, spec: Spec, workers: int, micro_batches: int) -> float:
        """The share of a step in which a worker waits at best: where one stage computes at a time, all but one of them."""
        return 1 - 1 / workers

    def watched(self) -> list[Watched]:
        """The calls that a recording of a step notes, forward and backward passes among them; none where they can't be told apart."""
        return []

    def after(self) -> list[Watched]:
        """The same of what comes after the last backward pass."""
        return [
            Watched(self, "average", lambda: ("reduce", None, None)),
            Watched(self.optimizer, "step", lambda *args: ("update", None, None)),
        ]

    def draw_apart(self) -> None:
        """Give each stage random numbers of its own in this step: or dropout of equal shape would drop the same elements in all."""
        if self.world.stage:
            seed(self.world.device, (torch.initial_seed() + GOLDEN * self.world.stage) % 2**63)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        if self.relay is None:
            yield from super().named_parameters()
        for stage in self.stages:
            yield from stage.named_parameters()

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        if self.relay is None:
            yield from super().named_buffers()
        for stage in self.stages:
            yield from stage.named_buffers()

    def state(self) -> dict[str, Any]:
        if self.relay is None:
            return super().state()
        model = {name: value.cpu() for stage in self.stages for name, value in stage.state_dict().items()}
        slots = {
            name: {slot: v.cpu() if isinstance(v, Tensor) else v for slot, v in held.items()}
            for name, held in self.optimizer_state().items()
        }
        return {"model": merge_stages(model, self.world), "optimizer": merge_stages(slots, self.world)}

    def load_model(self, model: dict[str, Any]) -> None:
        if self.relay is None:
            super().load_model(model)
        for stage in self.stages:
            stage.load_state_dict({name: model[name] for name in stage.state_dict()})

    def load(self, state: dict[str, Any]) -> None:
        if any(True for _ in self.module.parameters()):
            super().load(state)
        else:  # a stage without parameters: its optimizer holds nothing
            self.load_model(state["model"])


def _images(model: nn.Module, count: int, shape: Shape) -> Tensor:
    """Random samples [count, *shape] as ``model`` takes them, always the same."""
    parameter = next(model.parameters(), torch.empty(0))
    images = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    layout = torch.channels_last if parameter.device.type == "cpu" and images.dim() == 4 else torch.contiguous_format
    return images.to(parameter.device, parameter.dtype, memory_format=layout)


def _checked(model: nn.Module, traces: Traces, shape: Shape) -> list[Cut]:
    """The places to cut, the trace held against the model itself in both modes. Raises Untraceable where they differ.

    They do where the forward decides by values, or keeps count of its calls.
    """
    images = _images(model, 2, shape)
    cuts, outputs = cut.passing(model, traces, images)
    for mode in cut.MODES:
        with cut.unchanged(model, mode), torch.no_grad():
            expected = model(images)
        if not torch.equal(expected, outputs[mode]):
            raise tracing.Untraceable("its operations depend on values or on earlier calls")
    return cuts
