"""Neighbouring stages of one replica: activations forward, gradients back, point to point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from scalelab.comm.world import World
from scalelab.strategies.stages import crossing
from scalelab.strategies.stages.crossing import Crossing
from scalelab.strategies.stages.cut import Stage


@dataclass(frozen=True)
class Piece:
    """A stage, its place among all, and what comes in and goes out for one batch size; None at the model's ends."""

    stage: Stage
    number: int
    incoming: Crossing | None
    outgoing: Crossing | None

    def __call__(self, x: Tensor) -> Tensor:
        """What travels on, for what arrived: images at the first stage, outputs [B, classes] at the last."""
        y = self.stage(crossing.entering(x, self.incoming) if self.incoming else x)
        return crossing.leaving(y, self.outgoing) if self.outgoing else y


class Relay:
    """This rank's end of the exchange. Stage v is on rank v mod P of the replica."""

    def __init__(self, world: World, stages: Sequence[Stage]) -> None:
        """``stages`` of this rank, in order; every rank has as many."""
        assert world.along is not None, "there are several stages"
        self.group, self.world, self.stages = world.along, world, stages
        self.total = len(stages) * world.stages
        self.known: dict[int, list[Piece]] = {}

    def pieces(self, images: Tensor) -> list[Piece]:
        """This rank's stages for batches of this size; the stages in evaluation mode.

        The first time, one forward pass goes through all stages, in which neighbours tell each other what will travel: every rank calls it.
        """
        if len(images) not in self.known:
            with torch.no_grad():
                self.known[len(images)] = [self._meet(images, chunk, stage) for chunk, stage in enumerate(self.stages)]
        return self.known[len(images)]

    def _meet(self, images: Tensor, chunk: int, stage: Stage) -> Piece:
        number = chunk * self.world.stages + self.world.stage
        incoming = outgoing = None
        x = images
        if number > 0:
            incoming = crossing.ask(self._rank(number - 1), self.group, self.world.device)
            x = crossing.entering(self.receive(Piece(stage, number, incoming, None)), incoming)
        y = stage(x)
        if number < self.total - 1:
            trained = any(p.requires_grad for p in stage.parameters())
            outgoing = replace(crossing.of(y), requires_grad=trained or (incoming is not None and incoming.requires_grad))
            crossing.tell(outgoing, self._rank(number + 1), self.group, self.world.device)
            self.send(Piece(stage, number, None, outgoing), crossing.leaving(y, outgoing))
        return Piece(stage, number, incoming, outgoing)

    def receive(self, piece: Piece) -> Tensor:
        """What came in: a leaf that collects the gradient to send back."""
        assert piece.incoming is not None, "the first stage receives nothing"
        arrived = piece.incoming.empty(self.world.device)
        dist.recv(arrived, group=self.group, group_src=self._rank(piece.number - 1))
        return arrived.requires_grad_(piece.incoming.requires_grad)

    def send(self, piece: Piece, leaving: Tensor) -> None:
        """Pass on what the stage made, without its graph."""
        dist.send(leaving.detach(), group=self.group, group_dst=self._rank(piece.number + 1))

    def receive_gradient(self, piece: Piece) -> Tensor:
        """With respect to what was sent."""
        assert piece.outgoing is not None, "the last stage has the loss"
        gradient = piece.outgoing.empty(self.world.device)
        dist.recv(gradient, group=self.group, group_src=self._rank(piece.number + 1))
        return gradient

    def send_gradient(self, piece: Piece, arrived: Tensor) -> None:
        """The gradient that ``arrived`` has collected; zeros where the loss does not depend on it."""
        gradient = torch.zeros_like(arrived) if arrived.grad is None else arrived.grad
        dist.send(gradient.contiguous(), group=self.group, group_dst=self._rank(piece.number - 1))

    def _rank(self, number: int) -> int:
        """The rank, within the replica, of a stage."""
        return number % self.world.stages
