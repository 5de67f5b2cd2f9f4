"""Hosts that read other data from folders of one name."""

from __future__ import annotations

import msgspec
import pytest
import torch

from scalelab import data
from scalelab import spec as specs
from scalelab.worker import alike

SPEC = specs.from_mapping({"data": "digits"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, None),
        ({"train_limit": 1400}, "rank 1 has other data than rank 0: 1400 training and 360 test samples, against 1437 and 360"),
        ({"seed": 1}, None),
    ],
)
def test_what_differs_is_told(values: dict[str, int], said: str | None) -> None:
    rows = [alike.told(data.load(spec, lambda _: None)) for spec in (SPEC, msgspec.structs.replace(SPEC, **values))]
    found = alike.differing(torch.tensor(rows))
    assert found == (said and f"{said}; copy the same data to all hosts")


def test_so_is_another_order_of_them() -> None:
    first = data.load(SPEC, lambda _: None)
    first.train.labels[:100] = first.train.labels[:100].flip(0).clone()
    found = alike.differing(torch.tensor([alike.told(data.load(SPEC, lambda _: None)), alike.told(first)]))
    assert found is not None
    assert "other labels, or another order of them" in found
