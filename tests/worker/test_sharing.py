"""Uneven shares: the arithmetic, the same result as even ones, and speed measured where one worker is slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab import spec as specs
from scalelab.batch import derive, divided
from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from tests.trainings import Reference, completed, final, largest_difference


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (64, (3, 1), (48, 16)),
        (24, (3, 1), (18, 6)),
        (10, (1, 1, 1), (4, 3, 3)),
        (4, (1000, 1, 1), (2, 1, 1)),
        (3, (0.5, 0.5, 0.5), (1, 1, 1)),
        (7, (2, 5), (2, 5)),
    ],
)
def test_samples_are_dealt_out_in_proportion_and_none_goes_empty(
    total: int, weights: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    assert divided(total, weights) == expected


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"shares": "3:1:1"}, "has 3 shares for 2 replicas"),
        ({"shares": "3:x"}, "expected a positive number for each replica"),
        ({"shares": "3:0"}, "expected a positive number for each replica"),
        ({"shares": "3:1", "micro_batch": 8}, "give --accumulate instead"),
        ({"shares": "3:1", "batch": 9, "accumulate": 2}, "does not divide --batch 9; nearest: 1 or 3"),
        ({"shares": "3:1", "batch": 4, "accumulate": 4}, "less than one sample"),
        ({"norm_slices": 2, "batch_norm": "sync"}, "use --batch-norm local"),
        ({"norm_slices": 9, "batch": 16}, "a micro-batch has 8 samples; use at most 8"),
    ],
)
def test_what_cannot_be_shared_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ScalelabError, match=told):
        derive(specs.from_mapping({"workers": 2, **values}), (2, 1, 1), 2)


def test_one_replica_has_nothing_to_share() -> None:
    """Refused, not ignored; but one process stands for several workers where it is what they are compared with."""
    with pytest.raises(ScalelabError, match="--shares 3:1: --strategy single has one replica here"):
        derive(specs.from_mapping({"shares": "3:1"}), (1, 1, 1), 2)
    assert derive(specs.from_mapping({"shares": "3:1", "norm_slices": 2}), (1, 1, 1), 2).shares == ()


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3", "model", "pipeline"])
def test_uneven_shares_compute_what_one_process_does(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    values: dict[str, Any] = {"precision": "fp64", "batch_norm": "sync", "accumulate": 2, "epochs": 1, "augment": "crop"}
    out, alone = reference(**values)
    cut = {"workers": 4, "stages": 2} if strategy in ("model", "pipeline") else {"workers": 2}
    shared = completed(pool, tmp_path, **values, strategy=strategy, shares="3:1", **cut)
    assert shared.derived.shares == (9, 3)
    assert shared.losses == pytest.approx(alone.losses, rel=1e-11)
    assert largest_difference(final(tmp_path, shared), final(out, alone)) < 1e-11
    assert "uneven shares: 9 + 3 samples of each micro-batch, by replica" in shared.notes


SLOW = """
import os, time
from torch import nn

class Net(nn.Sequential):
    def forward(self, x):
        time.sleep((0.012 if os.environ.get("RANK") == "1" else 0.002) * len(x))
        return super().forward(x)

def build(num_classes):
    return Net(nn.Flatten(), nn.Linear(192, num_classes))
"""


def test_measured_shares_follow_the_speed_of_each_worker(pool: Pool, tmp_path: Path) -> None:
    """The second worker takes six times as long for a sample: it gets a small part, and both finish together."""
    (tmp_path / "slow.py").write_text(SLOW)
    values = {
        "model": f"{tmp_path}/slow.py:build",
        "model_args": {},
        "steps": 2,
        "evaluate": False,
        "workers": 2,
        "strategy": "ddp",
    }
    record = completed(pool, tmp_path / "runs", **values, shares="measured")
    fast, slow = record.derived.shares
    assert fast + slow == 24
    assert 2 <= slow <= 7
    even = completed(pool, tmp_path / "runs", **values)
    assert record.losses == pytest.approx(even.losses, rel=1e-5)
