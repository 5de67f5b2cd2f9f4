"""Strategies with a bug planted in them: ``verify`` fails each, and says what usually is the cause; a lossy option hides none."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.trainings import VERIFY_FLAGS

BROKEN = {
    "ForgetsToAverage": (
        """
        def accumulating(self, last):
            return self.module.no_sync()
        """,
        ["not averaged"],
    ),
    "DropsTheLastBucket": (
        """
        def accumulating(self, last):
            return self.module.no_sync()

        def step(self, micro_batches):
            optimizer, real = self.optimizer, self.optimizer.step
            def reduce_then_step():
                for parameter in list(self.module.parameters())[:-2]:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.world.size
                real()
            optimizer.step = reduce_then_step
            try:
                return super().step(micro_batches)
            finally:
                optimizer.step = real
        """,
        ["2 of ", ".weight", ".bias", "left out"],
    ),
    "ScalesTheLoss": (
        """
        def __init__(self, recipe, world, spec):
            super().__init__(replace(recipe, loss=lambda outputs, labels: recipe.loss(outputs, labels) / world.size), world, spec)
        """,
        ["first step's loss", "scaled"],
    ),
    "ScalesTheGradients": (
        """
        def step(self, micro_batches):
            real = self.loss
            self.loss = lambda outputs, labels: Doubled.apply(real(outputs, labels))
            try:
                return super().step(micro_batches)
            finally:
                self.loss = real
        """,
        ["scaled"],
    ),
    "BecomesNaN": (
        """
        taken = 0

        def step(self, micro_batches):
            loss = super().step(micro_batches)
            self.taken += 1
            if self.taken == 4:
                with torch.no_grad():
                    next(self.module.parameters()).fill_(float("nan"))
            return loss
        """,
        ["finite"],
    ),
    "SeesTheSameSamples": (
        """
        @property
        def replica(self):
            return 0
        """,
        ["first step's loss", "samples"],
    ),
}
HEADER = """
from dataclasses import replace
import torch
import torch.distributed as dist
from scalelab.strategies.ddp import DDP

class Doubled(torch.autograd.Function):
    forward = staticmethod(lambda ctx, loss: loss.clone())
    backward = staticmethod(lambda ctx, grad: 2 * grad)
"""


def planted(folder: Path, name: str) -> str:
    """A file that holds a strategy with a bug; its reference."""
    path = folder / "planted.py"
    path.write_text(f"{HEADER}\nclass {name}(DDP):\n{textwrap.indent(textwrap.dedent(BROKEN[name][0]), '    ')}")
    return f"{path}:{name}"


@pytest.mark.parametrize("name", BROKEN)
def test_a_planted_bug_fails_by_name_and_cause(command: Command, tmp_path: Path, name: str) -> None:
    reference = planted(tmp_path, name)
    ended = command(
        "verify", *VERIFY_FLAGS, "--batch-norm", "sync", "--steps", 4, "--workers", 3, "--strategy", reference, "ddp", "--json"
    )
    assert ended.status == 1
    broken, sound = json.loads(ended.out)["cells"]
    assert (broken["strategy"], broken["status"]) == (reference, "failed")
    for part in BROKEN[name][1]:
        assert part in broken["reason"]
    assert sound["status"] == "passed"  # one failure does not hide the others


def test_the_table_names_what_failed(command: Command, tmp_path: Path) -> None:
    reference = planted(tmp_path, "ForgetsToAverage")
    ended = command("verify", *VERIFY_FLAGS, "--steps", 2, "--strategy", reference)
    assert ended.status == 1
    assert "failed" in ended.out
    assert f"{reference}: " in ended.out


HIDING = {
    "ForgetsToAverage": "ranks' parameters differ",
    "DropsTheLastBucket": "ranks' parameters differ",
    "ScalesTheLoss": "first step's loss",
    "ScalesTheGradients": "the first update differs by 1.0e+00: --compress fp16 explains 0.01 at most",
    "SeesTheSameSamples": "first step's loss",
}


@pytest.mark.parametrize("name", HIDING)
def test_a_lossy_option_does_not_hide_a_bug(command: Command, tmp_path: Path, name: str) -> None:
    reference = planted(tmp_path, name)
    ended = command("verify", *VERIFY_FLAGS, "--steps", 2, "--strategy", reference, "--compress", "fp16", "--json")
    assert ended.status == 1
    (cell,) = json.loads(ended.out)["cells"]
    assert cell["status"] == "failed", cell
    assert HIDING[name] in cell["reason"]
