"""Evaluation: each test sample exactly once over all ranks; running statistics averaged over the replicas before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from scalelab.comm.batch_norm import average_buffers
from scalelab.comm.world import World
from scalelab.data.augment import Batches
from scalelab.strategies.base import Strategy

PADDING = -1
"""label of a sample that only fills up a rank's last batch, so that all ranks call forward equally often"""


@dataclass(frozen=True)
class Scores:
    """Over the whole test set. Precision and recall are macro averages over the classes that occur; confusion is [true][predicted]."""

    loss: float
    accuracy: float
    precision: float
    recall: float
    confusion: list[list[int]]


def evaluate(strategy: Strategy, batches: Batches, world: World, classes: int, batch: int) -> Scores:
    """Scores of the model as it is. A collective: every rank calls it. ``batch`` samples a forward pass."""
    average_buffers(strategy.module, world.across)
    total = torch.zeros(1, dtype=torch.float64, device=world.device)
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=world.device)
    training = strategy.module.training
    strategy.module.eval()
    share = rank_share(len(batches), world, batch)
    fetched = batches.each((indices for indices, _ in share), epoch=0, train=False)
    for (_, real), (images, labels) in zip(share, fetched, strict=True):
        outputs = strategy.forward(images).float()
        labels = torch.where((real & world.last_stage).to(labels.device), labels, PADDING)
        counts += counted(outputs.argmax(1), labels, classes)
        total += F.cross_entropy(outputs, labels, ignore_index=PADDING, reduction="sum")
    strategy.module.train(training)
    strategy.settle()
    summed = torch.cat([total, counts.double()])  # float64 holds any count of samples exactly
    dist.all_reduce(summed)
    return scores(float(summed[0]) / len(batches), summed[1:].view(classes, classes))


def counted(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How often each pair of (label, prediction) occurs, [classes * classes]; both are [B], samples of the label ``PADDING`` left out."""
    real = labels != PADDING
    return torch.bincount(labels[real] * classes + predicted[real], minlength=classes * classes)


def scores(loss: float, confusion: Tensor) -> Scores:
    """The scores that follow from ``confusion``, [classes, classes] in float64, of one sample at least.

    As torchmetrics and scikit-learn define them: a class that is neither there nor predicted is left out of the macro averages, and one
    that is never predicted has precision 0, one that is not there recall 0. They are not called for it: importing either costs a second
    in the start of every run.
    """
    right, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    occurs = true + predicted > 0
    return Scores(
        loss=loss,
        accuracy=float(right.sum() / confusion.sum()),
        precision=float((right / predicted.clamp(min=1))[occurs].mean()),
        recall=float((right / true.clamp(min=1))[occurs].mean()),
        confusion=confusion.long().tolist(),
    )


def rank_share(samples: int, world: World, batch: int) -> list[tuple[Tensor, Tensor]]:
    """This rank's (indices, whether real) batch by batch: of R replicas each takes every R-th sample, padded to equal counts."""
    per_replica = -(-samples // world.replicas)
    indices = torch.arange(world.replica, per_replica * world.replicas, world.replicas)
    real = indices < samples
    return list(zip(indices.clamp_max(samples - 1).split(batch), real.split(batch), strict=True))
