"""Pipeline parallelism: the layers are cut into stages that compute different micro-batches (Huang et al. 2019; Narayanan et al. 2021).

moves: the activation at each cut, and the gradient with respect to it; with several replicas, all gradients
when:  each activation as soon as its stage's forward ends, each gradient after its backward, while other micro-batches compute; the
       replicas' gradients are averaged in buckets when the schedule is through
bytes: A, the activation of a micro-batch at the cut, forward and back: 2 A for each cut and micro-batch (interleaved and zero-bubble
       have two stages on each rank: 2 P - 1 cuts); over n replicas of a stage with P bytes of gradients, an all-reduce: 2(n-1)/n · P
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.distributed.pipelining.schedules import ScheduleInterleavedZeroBubble

from scalelab import strategies
from scalelab.batch import derive
from scalelab.comm.world import World
from scalelab.errors import NotApplicable
from scalelab.record.timeline import Kind
from scalelab.spec import Spec
from scalelab.strategies.base import Batch, Recipe
from scalelab.strategies.formulas import staged
from scalelab.strategies.formulas.explanation import Explanation, Facts
from scalelab.strategies.stages.crossing import Crossing
from scalelab.strategies.stages.recording import Watched
from scalelab.strategies.stages.relay import Piece
from scalelab.strategies.stages.staged import Staged


@dataclass(frozen=True)
class Order:
    """A schedule: torch's class, the stages that each rank has, and what is left of the bubble of gpipe."""

    kind: Callable[..., Any]
    chunks: int
    part: float
    """of a forward and backward through a rank's layers, that it waits for each other rank"""


ORDERS: dict[str, Order] = {
    "gpipe": Order(ScheduleGPipe, 1, 1.0),
    "1f1b": Order(Schedule1F1B, 1, 1.0),
    "interleaved": Order(ScheduleInterleaved1F1B, 2, 1 / 2),
    "zero-bubble": Order(ScheduleInterleavedZeroBubble, 2, 1 / 6),
}


ZERO_BUBBLE_SINCE = "2.15"
"""of torch: with 2.11 a weight used twice in a stage got a wrong gradient, and synchronised batch norm failed"""


def bubble(order: str, stages: int, micro_batches: int) -> float:
    """The share of a step in which a rank waits, at best: P - 1 waits against M micro-batches, (P-1) / (M + P-1).

    With v stages on each rank a wait is 1/v as long (Narayanan et al. 2021, section 2.2); with the weights' gradients put off it is a third
    of that where forward, input's and weights' backward take equally long (Qi et al. 2023, ZB-H1). 0 for one stage.
    """
    waits = (stages - 1) * ORDERS[order].part
    return waits / (micro_batches + waits)


def in_flight(order: str, stages: int, micro_batches: int, place: int) -> tuple[int, str]:
    """(activations of one stage and micro-batch that the rank ``place`` holds at once at most, what that is).

    gpipe: all; 1f1b: P - s (Narayanan et al. 2021, section 2.2); with v stages a rank 2 (P - s - 1) + (v - 1) P + 1: a longer warm-up.
    """
    chunks = ORDERS[order].chunks
    if chunks > 1:
        most = min(micro_batches * chunks, 2 * (stages - place - 1) + (chunks - 1) * stages + 1)
        return most, f"{most} stages' micro-batches"
    most = micro_batches if order == "gpipe" or micro_batches < stages else min(micro_batches, stages - place)
    return most, f"{most} micro-batches, of its layers"


class Pipeline(Staged):
    """torch.distributed.pipelining's schedules over stages cut by ``cut``, unwrapped."""

    options: ClassVar[frozenset[str]] = frozenset({"split", "pipeline_schedule"})

    def __init__(self, recipe: Recipe, world: World, spec: Spec) -> None:
        self._schedules: dict[tuple[int, int], Any] = {}
        self._run: list[PipelineStage] = []
        super().__init__(recipe, world, spec)

    @classmethod
    def chunks(cls, spec: Spec) -> int:
        return ORDERS[spec.pipeline_schedule].chunks

    @classmethod
    def check(cls, spec: Spec) -> None:
        super().check(spec)
        degrees = strategies.degrees(spec)
        stages, derived = degrees[2], derive(spec, degrees, 1)
        if stages == 1:
            return
        zero_bubble = spec.pipeline_schedule == "zero-bubble"
        if zero_bubble and torch.__version__ < ZERO_BUBBLE_SINCE:
            raise NotApplicable(
                f"--pipeline-schedule zero-bubble: torch {torch.__version__} counts the gradient of a weight that is used twice too often; "
                f"{ZERO_BUBBLE_SINCE} does not; use 1f1b"
            )
        for name in ("compile", "recompute"):
            if zero_bubble and getattr(spec, name):
                raise NotApplicable(
                    f"--{name}: --pipeline-schedule zero-bubble goes backward through a stage twice, which such a stage can't; use 1f1b"
                )
        for count in [part.accumulate for part in derived.segments] or [derived.accumulate]:
            cls._check_rounds(spec, stages, count)

    @classmethod
    def _check_rounds(cls, spec: Spec, stages: int, count: int) -> None:
        """Raises NotApplicable where ``count`` micro-batches are no equal rounds, and the order of them needs such."""
        rounds = max(1, count // stages)
        if cls.chunks(spec) > 1 and count % rounds:
            nearest = [n for n in range(1, count + stages + 1) if n % max(1, n // stages) == 0]
            below, above = max(n for n in nearest if n < count), min((n for n in nearest if n > count), default=count)
            raise NotApplicable(
                f"--accumulate {count}: --pipeline-schedule {spec.pipeline_schedule} with {stages} stages takes equal rounds of "
                f"micro-batches; nearest: {below} or {above}; 1f1b and gpipe take any number"
            )

    def notes(self) -> list[str]:
        order, stages = self.spec.pipeline_schedule, self.world.stages
        if stages == 1:
            return []
        count = derive(self.spec, (self.world.replicas, 1, stages), 1).accumulate
        few = "" if count >= stages else f", fewer than the {stages} workers of a pipeline: more --accumulate leaves less"
        many = f"{count} micro-batch{'es' * (count > 1)}"
        waiting = f"{order} with {many}{few}: each worker waits for {bubble(order, stages, count):.0%} of a step, at best"
        return [*super().notes(), waiting]

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        order, p, m = facts.spec.pipeline_schedule, facts.derived.pipe, facts.derived.accumulate
        always = ORDERS[order].kind is ScheduleInterleavedZeroBubble
        found = staged.explain(facts, cls.chunks(facts.spec), partial(in_flight, order, p, m), always)
        note = f"bubble: each worker waits for {bubble(order, p, m):.0%} of a step, at best"
        return msgspec.structs.replace(found, notes=[*found.notes, note] if p > 1 else found.notes)

    def step(self, micro_batches: Sequence[Batch]) -> Tensor:
        if self.relay is None:
            return super().step(micro_batches)
        self.draw_apart()
        count, (first, _) = len(micro_batches), micro_batches[0]
        schedule = self._schedules.get((count, len(first)))
        if schedule is None:
            schedule = self._schedules[count, len(first)] = self._schedule(self.pieces(first), first, count)
        losses: list[Tensor] = []
        images = (torch.cat([images for images, _ in micro_batches]),) if self.world.stage == 0 else ()
        labels = torch.cat([labels for _, labels in micro_batches]) if self.world.last_stage else None
        try:
            schedule.step(*images, target=labels, losses=losses, return_outputs=False)
        except RuntimeError as error:  # torch's own says which stage, and not what went wrong in it
            raise error.__cause__ or error from None
        self.finish()
        if not losses:
            return torch.zeros((), device=self.world.device)
        return torch.stack([loss.detach() for loss in losses]).sum() / self.loss_scale

    @classmethod
    def least_bubble(cls, spec: Spec, workers: int, micro_batches: int) -> float:
        return bubble(spec.pipeline_schedule, workers, micro_batches)

    def watched(self) -> list[Watched]:
        chunks = [one for stage in self._run for one in _chunks(stage)]
        return [*chunks, Watched(self, "loss", lambda outputs, labels: None), *self.after()]

    def _schedule(self, pieces: Sequence[Piece], images: Tensor, count: int) -> Any:
        """torch's schedule for ``count`` micro-batches like ``images``; fewer than stages are what gpipe does with 1f1b as well."""
        assert self.relay is not None, "the model is cut"
        order = ORDERS[self.spec.pipeline_schedule]
        kind = ScheduleGPipe if order.kind is Schedule1F1B and count < self.world.stages else order.kind
        # zero-bubble finds weights only on the way to an input that requires a gradient
        always = order.kind is ScheduleInterleavedZeroBubble
        outputs = torch.empty(len(images), self.recipe.classes, dtype=images.dtype, device="meta", requires_grad=True)
        stages = [
            PipelineStage(
                _Travelling(piece, self.autocast),
                piece.number,
                self.relay.total,
                self.world.device,
                input_args=_meta(piece.incoming, always) if piece.incoming else images.to("meta"),
                output_args=_meta(piece.outgoing, always) if piece.outgoing else outputs,
                group=self.world.along,
            )
            for piece in pieces
        ]
        self._run += stages
        held: Any = stages if order.chunks > 1 else stages[0]
        return kind(held, count, self._scaled_loss(count), scale_grads=False)

    def _scaled_loss(self, count: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Of a micro-batch: its part of the step's mean."""

        def loss(outputs: Tensor, labels: Tensor) -> Tensor:
            with self.autocast():
                return self.loss(outputs, labels) * (self.loss_scale / count)

        return loss


def _chunks(stage: PipelineStage) -> list[Watched]:
    """How torch's schedules call the passes of a stage."""
    number = stage.stage_index

    def forward(index: int, *args: Any, **kwargs: Any) -> tuple[Kind, int, int]:
        return "forward", number, index

    def backward(index: int, loss: Tensor | None = None, full_backward: bool = True, **kwargs: Any) -> tuple[Kind, int, int]:
        return "backward" if full_backward else "input", number, index

    def weight(index: int, *args: Any, **kwargs: Any) -> tuple[Kind, int, int]:
        return "weight", number, index

    return [
        Watched(stage, "forward_one_chunk", forward),
        Watched(stage, "backward_one_chunk", backward),
        Watched(stage, "backward_weight_one_chunk", weight),
    ]


class _Travelling(nn.Module):
    """A stage as torch's schedules run it: from what arrives to what leaves."""

    def __init__(self, piece: Piece, autocast: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__()
        self.stage = piece.stage  # registered: the schedules ask for its parameters
        self.__dict__["piece"], self.__dict__["autocast"] = piece, autocast

    def forward(self, arrived: Tensor) -> Tensor:
        with self.__dict__["autocast"]():
            out: Tensor = self.__dict__["piece"](arrived)
            return out


def _meta(crossing: Crossing, always: bool) -> Tensor:
    """A tensor without values like those that travel; gradients come back where layers before are trained, or ``always``."""
    return torch.empty(crossing.shape, dtype=crossing.dtype, device="meta", requires_grad=always or crossing.requires_grad)
