"""Evaluation: each test sample exactly once over all ranks; running statistics averaged over the replicas before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassPrecision, MulticlassRecall

from scalelab.comm.batch_norm import average_buffers
from scalelab.comm.world import World
from scalelab.data.augment import Batches
from scalelab.strategies.base import Strategy

PADDING = -1
"""label of a sample that only fills up a rank's last batch, so that all ranks call forward equally often"""


@dataclass(frozen=True)
class Scores:
    """Over the whole test set. Precision and recall are macro averages; confusion is [true][predicted]."""

    loss: float
    accuracy: float
    precision: float
    recall: float
    confusion: list[list[int]]


def evaluate(strategy: Strategy, batches: Batches, world: World, classes: int, batch: int) -> Scores:
    """Scores of the model as it is. A collective: every rank calls it. ``batch`` samples a forward pass."""
    average_buffers(strategy.module, world.across)
    metrics = MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=PADDING, validate_args=False),
            "precision": MulticlassPrecision(classes, average="macro", ignore_index=PADDING, validate_args=False),
            "recall": MulticlassRecall(classes, average="macro", ignore_index=PADDING, validate_args=False),
            "confusion": MulticlassConfusionMatrix(classes, ignore_index=PADDING, validate_args=False),
        }
    ).to(world.device)
    total = torch.zeros((), dtype=torch.float64, device=world.device)
    training = strategy.module.training
    strategy.module.eval()
    share = rank_share(len(batches), world, batch)
    fetched = batches.each((indices for indices, _ in share), epoch=0, train=False)
    for (_, real), (images, labels) in zip(share, fetched, strict=True):
        outputs = strategy.forward(images).float()
        labels = torch.where((real & world.last_stage).to(labels.device), labels, PADDING)
        metrics.update(outputs, labels)
        total += F.cross_entropy(outputs, labels, ignore_index=PADDING, reduction="sum")
    strategy.module.train(training)
    strategy.settle()
    dist.all_reduce(total)
    values = metrics.compute()  # torchmetrics gathers over the ranks
    return Scores(
        loss=float(total) / len(batches),
        accuracy=float(values["accuracy"]),
        precision=float(values["precision"]),
        recall=float(values["recall"]),
        confusion=values["confusion"].tolist(),
    )


def rank_share(samples: int, world: World, batch: int) -> list[tuple[Tensor, Tensor]]:
    """This rank's (indices, whether real) batch by batch: of R replicas each takes every R-th sample, padded to equal counts."""
    per_replica = -(-samples // world.replicas)
    indices = torch.arange(world.replica, per_replica * world.replicas, world.replicas)
    real = indices < samples
    return list(zip(indices.clamp_max(samples - 1).split(batch), real.split(batch), strict=True))
