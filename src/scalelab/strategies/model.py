"""Model parallelism without pipelining: the layers are cut into stages, one on each rank of a replica, and one computes at a time.

moves: the activation at each cut, and the gradient with respect to it; with several replicas, all gradients
when:  for each micro-batch in turn, the activation after a stage's forward, the gradient after the next stage's backward; the
       replicas' gradients are averaged in buckets when all micro-batches are through
bytes: A, the activation of a micro-batch at the cut, forward and back: 2 A for each cut and micro-batch; over n replicas of a stage with
       P bytes of gradients, an all-reduce: 2(n-1)/n · P
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scalelab.strategies.base import Batch
from scalelab.strategies.formulas import staged
from scalelab.strategies.formulas.explanation import Explanation, Facts
from scalelab.strategies.stages.recording import Watched
from scalelab.strategies.stages.relay import Piece
from scalelab.strategies.stages.staged import Staged


class Model(Staged):
    """A stage on each rank; the others wait while one computes."""

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        return staged.explain(facts, 1, lambda place: (1, "one micro-batch, of its layers"), always=False)

    def step(self, micro_batches: Sequence[Batch]) -> Tensor:
        if self.relay is None:
            return super().step(micro_batches)
        self.draw_apart()
        total = torch.zeros((), device=self.world.device)
        for index, (images, labels) in enumerate(micro_batches):
            (piece,) = self.pieces(images)
            total = total + self._through(piece, index, images, labels, self.loss_scale / len(micro_batches))
        self.finish()
        return total / len(micro_batches)

    def watched(self) -> list[Watched]:
        return [
            Watched(self, "_forward", lambda piece, index, *args: ("forward", piece.number, index)),
            Watched(self, "_backward", lambda piece, index, *args: ("backward", piece.number, index)),
            *self.after(),
        ]

    def _through(self, piece: Piece, index: int, images: Tensor, labels: Tensor, scale: float) -> Tensor:
        """One micro-batch, forward and backward; its loss where this is the last stage, else 0."""
        assert self.relay is not None, "the model is cut"
        arrived = self.relay.receive(piece) if piece.incoming else images
        out = self._forward(piece, index, arrived, labels)
        if piece.outgoing is None:
            self._backward(piece, index, out * scale, None)
        else:
            self.relay.send(piece, out)
            if piece.outgoing.requires_grad:
                gradient = self.relay.receive_gradient(piece)
                if out.requires_grad:  # else what is trained here has no part in it
                    self._backward(piece, index, out, gradient)
        if piece.incoming is not None and piece.incoming.requires_grad:
            self.relay.send_gradient(piece, arrived)
        return torch.zeros((), device=self.world.device) if piece.outgoing else out.detach()

    def _forward(self, piece: Piece, index: int, arrived: Tensor, labels: Tensor) -> Tensor:
        """What leaves the stage; the loss of the micro-batch ``index`` where it is the last."""
        with self.autocast():
            out = piece(arrived)
            return out if piece.outgoing else self.loss(out, labels)

    def _backward(self, piece: Piece, index: int, out: Tensor, gradient: Tensor | None) -> None:
        out.backward(gradient)
