"""What follows from which samples were taken for which classes."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassPrecision, MulticlassRecall

from scalelab.worker.evaluate import PADDING, Scores, counted, scores

CLASSES = 6


def scored(predicted: torch.Tensor, labels: torch.Tensor) -> Scores:
    return scores(0.5, counted(predicted, labels, CLASSES).view(CLASSES, CLASSES).double())


@pytest.mark.parametrize("there", [range(CLASSES), range(2, CLASSES), (1, 3)], ids=["all", "some", "two"])
def test_scores_are_those_of_torchmetrics(there: range | tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor(there)[torch.randint(len(there), (50,), generator=generator)]
    wrong = torch.randint(4, (50,), generator=generator)  # classes 4 and 5 are never predicted by mistake
    predicted = torch.where(torch.rand(50, generator=generator) < 0.6, labels, wrong)
    labels[::7] = PADDING
    found, options = scored(predicted, labels), {"ignore_index": PADDING}
    assert found.accuracy == pytest.approx(float(MulticlassAccuracy(CLASSES, average="micro", **options)(predicted, labels)))
    assert found.precision == pytest.approx(float(MulticlassPrecision(CLASSES, average="macro", **options)(predicted, labels)))
    assert found.recall == pytest.approx(float(MulticlassRecall(CLASSES, average="macro", **options)(predicted, labels)))
    assert found.confusion == MulticlassConfusionMatrix(CLASSES, **options)(predicted, labels).tolist()


def test_a_class_that_is_never_predicted_has_precision_0_and_counts() -> None:
    found = scored(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 2]))
    assert (found.precision, found.recall) == (pytest.approx((1 + 1 / 2 + 0) / 3), pytest.approx((1 + 1 + 0) / 3))


def test_a_batch_of_padding_counts_nothing() -> None:
    assert counted(torch.zeros(5, dtype=torch.int64), torch.full((5,), PADDING), CLASSES).sum() == 0
