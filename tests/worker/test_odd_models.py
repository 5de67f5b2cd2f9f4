"""Models that are not a plain stack of layers: every strategy trains them as single does, saves and resumes them, or is not applicable."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from scalelab.launch.pool import Pool
from scalelab.studies.verifying.variants import named
from scalelab.studies.verifying.verify import verify
from tests.trainings import EVERY, completed, equal, final, tiny

SPREAD = [name for name in EVERY if name != "single"]

ODD = """
    import torch
    from torch import nn

    class Odd(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(192, 192) for _ in range(3))
            self.out, self.kind = nn.Linear(192, 4), kind
            if "tied" in kind:
                self.b.weight = self.a.weight
            if "unused" in kind:
                self.extra = nn.Linear(192, 192)
            if kind == "scalar":
                self.scale = nn.Parameter(torch.tensor(1.5))
            if "frozen" in kind:
                (self.c if "tied" in kind else self.b).requires_grad_(False)

        def forward(self, x):
            x = torch.tanh(self.c(torch.tanh(self.b(torch.tanh(self.a(x.flatten(1)))))))
            return self.out(x * self.scale if self.kind == "scalar" else x)

    def build(num_classes, kind):
        return Odd(kind)
"""


@pytest.fixture
def odd(tmp_path: Path) -> str:
    (tmp_path / "odd.py").write_text(textwrap.dedent(ODD))
    return f"{tmp_path}/odd.py:build"


@pytest.mark.parametrize("kind", ["tied", "unused", "scalar", "frozen"])
def test_every_strategy_equals_single_or_is_refused(pool: Pool, tmp_path: Path, odd: str, kind: str) -> None:
    base = tiny(tmp_path, model=odd, model_args={"kind": kind}, workers=2, steps=3, accumulate=2, batch_norm="sync")
    refused = {"zero2", "zero3"} if kind == "scalar" else set()
    for cell in verify(pool, base, named(SPREAD, base.engine), False, lambda _: None).cells:
        assert cell.status == ("not_applicable" if cell.strategy in refused else "passed"), cell


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("strategy", EVERY)
def test_they_resume_to_the_bit(pool: Pool, tmp_path: Path, odd: str, strategy: str, momentum: float) -> None:
    """All oddities in one model. momentum 0 is an optimizer without any state; an unused or frozen parameter has none either."""
    values = {"model": odd, "model_args": {"kind": "tied, unused, frozen"}, "strategy": strategy, "momentum": momentum}
    values["workers"] = 1 if strategy == "single" else 2
    whole = completed(pool, tmp_path / "whole", epochs=2, **values)
    part = completed(pool, tmp_path / "part", epochs=2, stop_after_epoch=1, **values)
    resumed = completed(pool, tmp_path / "part", epochs=2, resume=str(tmp_path / "part" / part.run), **values)
    assert resumed.losses == whole.losses
    assert equal(final(tmp_path / "part", resumed), final(tmp_path / "whole", whole))


def test_momentum_given_with_a_resume_is_used(pool: Pool, tmp_path: Path) -> None:
    losses = []
    for momentum in (0.9, 0.1):
        part = completed(pool, tmp_path, epochs=2, stop_after_epoch=1)
        losses.append(completed(pool, tmp_path, epochs=2, resume=str(tmp_path / part.run), momentum=momentum).losses)
    kept, other = losses
    assert kept[:5] == other[:5], "the first step's loss is before its update"
    assert kept[5:] != other[5:]


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_a_shard_is_half_of_the_model_on_two_workers(pool: Pool, tmp_path: Path, strategy: str) -> None:
    """Evaluation leaves gathered parameters behind in zero2: they are no part of what a worker holds between steps."""
    whole = completed(pool, tmp_path, strategy="single", checkpoint=False)
    shard = completed(pool, tmp_path, strategy=strategy, workers=2, checkpoint=False)
    for category in ("parameters", "gradients", "optimizer"):
        ratio = getattr(shard.memory_bytes, category) / getattr(whole.memory_bytes, category)
        assert 0.5 <= ratio < 0.6, (category, ratio)


ONLY_EVALUATED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first, self.more, self.last = nn.Linear(192, 8), nn.Linear(192, 8), nn.Linear(8, num_classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.last(self.first(x) if self.training else self.first(x) + self.more(x))

def build(num_classes):
    return Net(num_classes)
"""


@pytest.mark.parametrize("strategy", ["ddp", "zero1"])
def test_a_parameter_that_only_evaluation_uses_is_no_error(pool: Pool, tmp_path: Path, strategy: str) -> None:
    (tmp_path / "net.py").write_text(ONLY_EVALUATED)
    values = {"model": f"{tmp_path}/net.py:build", "model_args": {}, "precision": "fp64", "epochs": 1}
    alone = completed(pool, tmp_path, **values)
    assert completed(pool, tmp_path, **values, strategy=strategy, workers=2).losses == pytest.approx(alone.losses, rel=1e-11)
