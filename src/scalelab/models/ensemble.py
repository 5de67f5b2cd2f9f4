"""Several members that look at the same images; their scores are averaged, and trained as one model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scalelab.errors import ScalelabError, unknown
from scalelab.models.shapes import Shape

AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda scores: scores.mean(0),
    # The log of the mean probability: cross-entropy of that is the negative log-likelihood of the averaged prediction.
    "probabilities": lambda scores: scores.log_softmax(-1).logsumexp(0) - math.log(len(scores)),
}
"""[members, B, classes] → [B, classes], of which the loss is. Deep ensembles (Lakshminarayanan et al. 2017) average probabilities"""


class Ensemble(nn.Module):
    """The average of the scores of ``members``; ``average`` is a name of ``AVERAGES``, ``told`` a line for the record."""

    def __init__(self, members: list[nn.Module], average: str, told: str) -> None:
        super().__init__()
        self.members, self.average, self.told = nn.ModuleList(members), average, told

    def forward(self, images: Tensor) -> Tensor:
        """[B, *shape] → [B, classes]."""
        return AVERAGES[self.average](torch.stack([member(images) for member in self.members]))


def build(
    num_classes: int, shape: Shape, members: int = 3, member: str = "basic_cnn", average: str = "logits",
    seeds: str | int | None = None, **member_args: Any,
) -> nn.Module:  # fmt: skip
    """``members`` models ``member`` (any that ``--model`` takes), each with initial weights of its own.

    The weights follow from torch's generator one member after the other, or from ``seeds``, "3:5:8", one for each. Other arguments are
    the members'. Raises ScalelabError: fewer than 1 member, a member that can't be built, seeds that aren't as many numbers.
    """
    from scalelab.models import registry  # which holds this function

    if not isinstance(members, int) or members < 1:
        raise ScalelabError(f"ensemble: members={members!r} should be a whole number of at least 1")
    if average not in AVERAGES:
        raise unknown("average of an ensemble", str(average), AVERAGES)
    if member == "ensemble":
        raise ScalelabError("ensemble: its member can't be an ensemble again; say more members")
    given = _seeds(seeds, members)
    built = []
    for number in range(members):
        if given:
            torch.manual_seed(given[number])
        built.append(registry.make(str(member), member_args, num_classes, shape))
    seeded = f", with the seeds {', '.join(map(str, given))}" if given else ""
    told = f"ensemble of {members} x {member}{seeded}, trained together: the loss is that of the mean of the members' {average}"
    return Ensemble(built, average, told)


def _seeds(seeds: str | int | None, members: int) -> list[int]:
    """One for each member, or none. Raises ScalelabError."""
    if seeds is None:
        return []
    words = str(seeds).split(":")
    if len(words) != members or not all(word.isdecimal() and int(word) < 2**63 for word in words):
        raise ScalelabError(f"ensemble: seeds={seeds!r} should be {members} whole numbers, one for each member, such as 3:5:8")
    return [int(word) for word in words]
