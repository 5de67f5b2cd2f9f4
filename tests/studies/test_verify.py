"""``verify``: every strategy computes what ``single`` does; planted bugs are caught and named."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.optim import OPTIMIZERS
from scalelab.record.schema import VerifyRecord
from scalelab.strategies import STRATEGIES
from scalelab.studies.verifying.variants import named
from scalelab.studies.verifying.verify import TOLERANCE, verify
from tests.conftest import Command
from tests.studies.test_planted_bugs import planted
from tests.trainings import VERIFY_FLAGS, tiny

SPREAD = [name for name, row in STRATEGIES.items() if row.axis is not None]


def verified(pool: Pool, out: Path, names: list[str], **values: Any) -> VerifyRecord:
    base = tiny(out, **{"steps": 4, "workers": 3, "batch_norm": "sync", "test_limit": 4, **values})
    return verify(pool, base, named(names, base.engine), False, lambda cell: None)


CASES = [
    (optimizer, accumulate, batch_norm)
    for optimizer in OPTIMIZERS
    for accumulate in (1, 2)
    for batch_norm in ("sync", "local")
    if optimizer == "sgd" or (accumulate, batch_norm) == (2, "sync")
]


@pytest.mark.parametrize(("optimizer", "accumulate", "batch_norm"), CASES)
def test_every_strategy_equals_single(pool: Pool, tmp_path: Path, optimizer: str, accumulate: int, batch_norm: str) -> None:
    lr = {"sgd": 0.05}.get(optimizer, 0.003)
    result = verified(
        pool, tmp_path, SPREAD, optimizer=optimizer, accumulate=accumulate, batch_norm=batch_norm, lr=lr, weight_decay=0.01
    )
    assert [cell.strategy for cell in result.cells] == SPREAD
    refused = {"zero2", "zero3"} if not OPTIMIZERS[optimizer].elementwise else set()
    for cell in result.cells:
        if cell.strategy in refused:
            assert cell.status == "not_applicable"
            assert "looks at whole tensors" in (cell.reason or "")
            continue
        if (exact := STRATEGIES[cell.strategy].exact_for) and optimizer not in exact:
            assert cell.status == "not_applicable"
            assert f"with --optimizer sgd only, not with {optimizer}" in (cell.reason or "")
            continue
        assert cell.status == "passed", cell
        assert cell.max_loss_difference is not None
        assert cell.max_parameter_difference is not None
        assert cell.max_buffer_difference is not None
        assert max(cell.max_loss_difference, cell.max_parameter_difference, cell.max_buffer_difference) <= 1e-9


def test_single_equals_itself(pool: Pool, tmp_path: Path) -> None:
    (cell,) = verified(pool, tmp_path, ["single"]).cells
    assert (cell.status, cell.workers, cell.max_loss_difference, cell.max_parameter_difference) == ("passed", 1, 0.0, 0.0)


def test_augmented_digits_over_several_epochs(pool: Pool, tmp_path: Path) -> None:
    """The epochs' orders and the augmentation reach every replica as they reach one process."""
    result = verified(
        pool, tmp_path, ["ddp", "zero3"], data="digits", train_limit=51, steps=5, augment="crop+flip", schedule="one-cycle"
    )
    assert [cell.status for cell in result.cells] == ["passed", "passed"]
    assert result.steps == 5  # of two steps an epoch: three epochs


def test_a_timm_model_whose_batch_norm_holds_the_activation(pool: Pool, tmp_path: Path) -> None:
    timm = {"model": "timm:mobilenetv3_small_050", "model_args": {}, "image_size": 32, "workers": 2, "batch": 8, "steps": 1}
    (cell,) = verified(pool, tmp_path, ["zero3"], **timm).cells
    assert (cell.status, cell.reason) == ("passed", None)


DROPPING = """
    from torch import nn
    def build(num_classes):
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Dropout2d(0.5), nn.Flatten(), nn.Dropout(0.5), nn.Linear(288, num_classes))
"""


def test_dropout_is_set_to_zero_and_said(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "dropping.py").write_text(textwrap.dedent(DROPPING))
    result = verified(pool, tmp_path, ["ddp", "zero2"], model=f"{tmp_path}/dropping.py:build", model_args={})
    assert [cell.status for cell in result.cells] == ["passed", "passed"]
    assert "dropout and stochastic depth are set to 0" in result.notes


def test_a_model_without_batch_norm(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        textwrap.dedent(DROPPING).replace("nn.Dropout2d(0.5)", "nn.SiLU()").replace("nn.Dropout(0.5)", "nn.Identity()")
    )
    result = verified(pool, tmp_path, SPREAD, model=f"{tmp_path}/plain.py:build", model_args={})
    assert {cell.status for cell in result.cells} == {"passed"}
    assert {cell.max_buffer_difference for cell in result.cells} == {0.0}


def test_float32_shows_what_rounding_adds(pool: Pool, tmp_path: Path) -> None:
    base = tiny(tmp_path, steps=2, workers=2, batch_norm="sync")
    (cell,) = verify(pool, base, named(["ddp"], "torch"), True, lambda cell: None).cells
    assert cell.status == "passed"
    assert cell.max_parameter_difference is not None
    assert 1e-9 < cell.max_parameter_difference <= TOLERANCE["fp32"]


def test_passing_is_exit_status_0(command: Command, tmp_path: Path) -> None:
    ended = command("verify", *VERIFY_FLAGS, "--steps", 2, "--strategy", "ddp", "--json")
    assert ended.status == 0
    assert json.loads(ended.out)["cells"][0]["status"] == "passed"


RAISING = """
from scalelab.strategies.ddp import DDP
class Raising(DDP):
    def step(self, micro_batches):
        if self.world.rank == 1:
            raise KeyError("the user's own bug")
        return super().step(micro_batches)
"""


def test_a_strategy_that_raises_fails_with_its_own_words(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "raising.py").write_text(RAISING)
    raising, sound = verified(pool, tmp_path, [f"{tmp_path}/raising.py:Raising", "ddp"]).cells
    assert raising.status == "failed"
    assert "the user's own bug" in (raising.reason or "")
    assert sound.status == "passed"


def test_verify_leaves_no_run_behind(pool: Pool, tmp_path: Path) -> None:
    verified(pool, tmp_path / "runs", ["ddp"], steps=1)
    assert not (tmp_path / "runs").exists()


def test_a_batch_that_does_not_divide_is_refused_before_anything_starts(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="nearest: 30 or 33"):
        verified(pool, tmp_path, ["ddp"], batch=32)


def test_tensors_that_hold_rounding_only_are_told_and_left_out(pool: Pool, tmp_path: Path) -> None:
    """Under Adam a parameter with no gradient moves by rounding divided by rounding: no strategy can agree with single on it."""
    model = {"model": "timm:mobilenetv3_small_050", "model_args": {}, "image_size": 32, "train_limit": 32}
    (cell,) = verified(pool, tmp_path, ["ddp"], workers=2, batch=8, steps=2, optimizer="adamw", lr=0.001, **model).cells
    assert cell.status == "passed", cell
    assert cell.reason is not None
    assert "left out: single itself changes them" in cell.reason


def test_a_strategy_that_cannot_be_loaded_is_told_before_anything_is_trained(command: Command, tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("class Half(\n")
    ended = command("verify", *VERIFY_FLAGS, "--steps", 2, "--strategy", "ddp", f"{tmp_path}/half.py:Half")
    assert ended.status == 2
    assert "half.py" in ended.error  # one line: no cell was told before it
    assert "is not Python" in ended.error


def test_a_verification_in_which_nothing_passed_is_exit_status_1(command: Command) -> None:
    ended = command(
        "verify", *VERIFY_FLAGS, "--optimizer", "adafactor", "--lr", 0.003, "--steps", 1, "--strategy", "zero3", "--json"
    )
    assert ended.status == 1
    assert json.loads(ended.out)["cells"][0]["status"] == "not_applicable"
    assert "nothing passed" in ended.err


SHIFTED = """
import torch
from torch import nn
class Shifted(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Linear(8, num_classes)
        self.shifts = nn.ParameterList(torch.zeros(8, 1, 1) for _ in range(12))
    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x) + sum(self.shifts))).mean((2, 3)))
"""


def test_a_reference_that_repeats_too_little_fails_and_says_so(pool: Pool, tmp_path: Path) -> None:
    """Batch norm takes the shifts out again: their gradients are rounding only, and they are most of the tensors."""
    (tmp_path / "shifted.py").write_text(SHIFTED)
    values = {"model": f"{tmp_path}/shifted.py:Shifted", "model_args": {}, "lr": 0.1, "steps": 2}
    (cell,) = verified(pool, tmp_path, ["ddp"], optimizer="adamw", **values).cells
    assert cell.status == "failed"
    assert "single itself does not repeat" in (cell.reason or "")
    assert "12 of 17 trained tensors" in (cell.reason or "")


def test_a_reference_that_fails_on_the_second_try_leaves_the_failure(pool: Pool, tmp_path: Path) -> None:
    """The run that tells rounding from bugs dies; the other strategies' cells are still to come."""
    model = tmp_path / "once.py"
    model.write_text(
        "import torch\nfrom torch import nn\n"
        "class Once(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        if self.weight.dtype == torch.float64 and x.is_contiguous(memory_format=torch.channels_last):\n"
        "            raise KeyError('another layout')\n"
        "        return super().forward(x.flatten(1))\n"
        "def build(num_classes):\n    return Once(192, num_classes)\n"
    )
    broken = planted(tmp_path, "ForgetsToAverage")
    values = {"model": f"{model}:build", "model_args": {}, "channels_last": "off"}
    first, second = verified(pool, tmp_path, [broken, "ddp"], **values).cells
    assert (first.status, second.status) == ("failed", "passed")
    assert "not averaged" in (first.reason or "")


NOISY = """
    import os
    from torch import nn

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = nn.Linear(192, 4)

        def forward(self, x):
            return self.line(x.flatten(1) + os.urandom(1)[0] / 256)

    def build(num_classes):
        return Noisy()
"""


def test_a_model_that_is_random_beyond_the_seed_is_not_the_strategys_fault(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(textwrap.dedent(NOISY))
    (cell,) = verified(pool, tmp_path, ["ddp"], workers=2, model=f"{tmp_path}/noisy.py:build", model_args={}).cells
    assert cell.status == "failed"
    assert "random beyond --seed" in (cell.reason or "")


def test_measured_shares_with_local_batch_norm_have_no_reference(pool: Pool, tmp_path: Path) -> None:
    """What one process would have to normalise apart is known only while the strategy runs."""
    (cell,) = verified(pool, tmp_path, ["ddp"], shares="measured", batch_norm="local").cells
    assert cell.status == "not_applicable"
    assert "use --batch-norm sync" in (cell.reason or "")


def test_a_cell_says_the_options_that_it_was_compared_with(pool: Pool, tmp_path: Path) -> None:
    pipeline, local_sgd = verified(pool, tmp_path, ["pipeline", "local-sgd"], workers=2, steps=1, pipeline_schedule="gpipe").cells
    assert pipeline.options == {"pipeline_schedule": "gpipe"}
    assert local_sgd.options == {"pipeline_schedule": "gpipe", "sync_every": 1}


def test_engine_and_strategy_pick_cells_of_the_whole_table(command: Command) -> None:
    words = ["verify", *VERIFY_FLAGS, "--steps", 1, "--all", "--json"]
    cells = json.loads(command(*words, "--strategy", "ddp", "zero1", "--engine", "horovod").out)["cells"]
    assert {(cell["strategy"], cell["engine"]) for cell in cells} == {("ddp", "horovod"), ("zero1", "horovod")}
    assert {cell["status"] for cell in cells if cell["strategy"] == "zero1"} == {"not_applicable"}  # named, so told
    ended = command(*words, "--strategy", "ddpp")
    assert (ended.status, "did you mean 'ddp'" in ended.error) == (2, True)
