"""Engine deepspeed: the same training as one process, in float32 on models without kinks; what it can't do is refused before the start."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalelab import strategies
from scalelab.batch import derive
from scalelab.errors import NotApplicable, ScalelabError
from scalelab.launch.asking import ask
from scalelab.launch.pool import Pool
from scalelab.record.schema import TrainRecord
from scalelab.strategies.deepspeed_engine import config
from tests.support import missing
from tests.trainings import completed, equal, final, largest_difference, tiny, train

ZERO = ("ddp", "zero1", "zero2", "zero3")
SAME: dict[str, Any] = {
    "precision": "fp32", "smooth": True, "batch_norm": "sync", "epochs": 2, "momentum": 0.9, "weight_decay": 0.01,
    "schedule": "cosine", "warmup_epochs": 1, "deepspeed_config": None,
}  # fmt: skip
ADAM: dict[str, Any] = {**SAME, "optimizer": "adamw", "lr": 0.001}
CLOSE = 5e-6
"""float32's rounding over a few steps; a bug is 1e-2"""

Reference = Callable[..., tuple[Path, TrainRecord]]


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not strategies.installed("deepspeed"):
        missing("deepspeed: `make engines` installs it")


@pytest.fixture(scope="module")
def reference(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """One process's training, run once for each set of values."""
    seen: dict[str, tuple[Path, TrainRecord]] = {}

    def alone(**values: Any) -> tuple[Path, TrainRecord]:
        key = json.dumps(values, sort_keys=True)
        if key not in seen:
            out = tmp_path_factory.mktemp("alone")
            seen[key] = out, completed(pool, out, **values)
        return seen[key]

    return alone


def apart(out: Path, record: TrainRecord, alone: tuple[Path, TrainRecord]) -> float:
    """The largest difference of losses, parameters, buffers and the optimizer's slots."""
    losses = max(abs(a - b) for a, b in zip(record.losses, alone[1].losses, strict=True))
    assert record.accuracy == pytest.approx(alone[1].accuracy)
    return max(losses, largest_difference(final(out, record), final(*alone)))


# --- the same training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [*ZERO, "pipeline"])
def test_equals_one_process(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    spread = completed(pool, tmp_path, **SAME, accumulate=2, engine="deepspeed", strategy=strategy, workers=2)
    assert apart(tmp_path, spread, reference(**SAME, accumulate=2)) < CLOSE


@pytest.mark.parametrize("strategy", ZERO[1:])
def test_three_workers_three_micro_batches_and_adam(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    values = {**ADAM, "batch": 27}
    spread = completed(pool, tmp_path, **values, accumulate=3, engine="deepspeed", strategy=strategy, workers=3)
    assert apart(tmp_path, spread, reference(**values, accumulate=3)) < CLOSE


def test_pipeline_times_data(pool: Pool, tmp_path: Path, reference: Reference) -> None:
    spread = completed(pool, tmp_path, **ADAM, accumulate=3, engine="deepspeed", strategy="pipeline", workers=4, stages=2)
    assert apart(tmp_path, spread, reference(**ADAM, accumulate=3)) < CLOSE


@pytest.mark.parametrize(
    ("strategy", "offload", "values"),
    [("zero1", "optimizer", SAME), ("zero2", "optimizer", ADAM), ("zero3", "all", SAME)],
    ids=["zero1", "zero2", "zero3-all"],
)
def test_what_is_offloaded_is_updated_by_the_same_optimizer(
    pool: Pool, tmp_path: Path, reference: Reference, strategy: str, offload: str, values: dict[str, Any]
) -> None:
    cell = {"engine": "deepspeed", "strategy": strategy, "workers": 2, "offload": offload}
    spread = completed(pool, tmp_path, **values, accumulate=2, **cell)
    assert apart(tmp_path, spread, reference(**values, accumulate=2)) < CLOSE


@pytest.mark.parametrize(("strategy", "model"), [("ddp", "odd:tied"), ("zero3", "odd:tied"), ("pipeline", "odd:bare")])
def test_odd_models(pool: Pool, tmp_path: Path, reference: Reference, strategy: str, model: str) -> None:
    values = {**SAME, "model": model, "model_args": {}, "lr": 0.01}
    spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy=strategy, workers=2)
    assert spread.losses == pytest.approx(reference(**values)[1].losses, rel=1e-5)


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
def test_a_frozen_layer(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    values = {**SAME, "model": "odd:frozen", "model_args": {}}
    spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy=strategy, workers=2)
    assert apart(tmp_path, spread, reference(**values)) < CLOSE


def test_uneven_shares(pool: Pool, tmp_path: Path, reference: Reference) -> None:
    for strategy, workers in (("zero2", 2), ("pipeline", 4)):
        stages = {"stages": 2} if strategy == "pipeline" else {}
        spread = completed(pool, tmp_path, **SAME, engine="deepspeed", strategy=strategy, workers=workers, shares="3:1", **stages)
        assert apart(tmp_path, spread, reference(**SAME)) < CLOSE


def test_recomputation(pool: Pool, tmp_path: Path, reference: Reference) -> None:
    values = {**SAME, "model": "odd:tied", "model_args": {}, "lr": 0.01}
    for strategy in ("zero3", "pipeline"):
        spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy=strategy, workers=2, recompute=True)
        assert spread.losses == pytest.approx(reference(**values)[1].losses, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adafactor", "lamb"])
def test_an_optimizer_of_whole_tensors_has_them_in_stage_0_only(
    pool: Pool, tmp_path: Path, reference: Reference, optimizer: str
) -> None:
    values = {**SAME, "optimizer": optimizer, "lr": 0.01, "epochs": 1}
    spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy="ddp", workers=2)
    assert apart(tmp_path, spread, reference(**values)) < 1e-5
    with pytest.raises(NotApplicable, match="looks at whole tensors"):
        train(pool, tmp_path, **values, engine="deepspeed", strategy="zero1", workers=2)


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_bf16_weights_with_wide_masters(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    half = {**SAME, "precision": "bf16"}
    spread = completed(pool, tmp_path, **half, engine="deepspeed", strategy=strategy, workers=2)
    assert spread.losses == pytest.approx(reference(**SAME)[1].losses, rel=1e-2)
    weights = final(tmp_path, spread)["model/9.weight"]
    assert str(weights.dtype) == "float32"
    assert (weights.view("uint32") & 0xFFFF).any()  # not merely bf16 written wide
    assert spread.memory_bytes.parameters <= 6688 / 2


# --- state ------------------------------------------------------------------------------------------------------------

CELLS: list[dict[str, Any]] = [
    {"strategy": "ddp", "workers": 2},
    {"strategy": "zero1", "workers": 3},
    {"strategy": "zero2", "workers": 2, "offload": "optimizer"},
    {"strategy": "zero3", "workers": 2, "offload": "all"},
    {"strategy": "pipeline", "workers": 2},
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell["strategy"])
def test_a_run_goes_on_in_this_cell_and_from_it(pool: Pool, tmp_path: Path, reference: Reference, cell: dict[str, Any]) -> None:
    """One epoch in one process, one here, one in one process again."""
    values, away = {**ADAM, "epochs": 3}, {"strategy": "single", "engine": "torch", "workers": 1, "offload": "none"}
    out, first = reference(**values, stop_after_epoch=1)
    folder = Path(shutil.copytree(out / first.run, tmp_path / first.run))
    completed(pool, tmp_path, resume=folder, **{**away, "engine": "deepspeed", **cell}, epochs=3, stop_after_epoch=2)
    last = completed(pool, tmp_path, resume=folder, **away, epochs=3, stop_after_epoch=3)
    assert len(last.losses) == 12
    assert apart(tmp_path, last, reference(**values)) < CLOSE


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero3"])
def test_probes_leave_no_trace(pool: Pool, tmp_path: Path, strategy: str) -> None:
    values = {"engine": "deepspeed", "strategy": strategy, "workers": 2, "epochs": 2}
    probed, plain = (completed(pool, tmp_path, **values, probe_steps=n) for n in (1, 0))
    assert equal(final(tmp_path, probed), final(tmp_path, plain))
    assert probed.communication_seconds.exposed.median is not None


@pytest.mark.parametrize(
    ("strategy", "values"),
    [
        ("ddp", {"workers": 2, "precision": "bf16"}),
        ("zero1", {"workers": 2, "accumulate": 2}),
        ("zero2", {"workers": 2, "precision": "bf16", "accumulate": 2}),
        ("zero3", {"workers": 3, "accumulate": 2, "batch_norm": "sync"}),
    ],
    ids=ZERO,
)
def test_formulas_give_the_bytes_that_are_counted(pool: Pool, tmp_path: Path, strategy: str, values: dict[str, Any]) -> None:
    cell = {"engine": "deepspeed", "strategy": strategy, **values}
    told = ask(pool, "scalelab.worker.explain:explain", tiny(tmp_path, **cell))
    counted = completed(pool, tmp_path, **cell, epochs=1, evaluate=False, probe_steps=1)
    assert told["total_sent"] == pytest.approx(counted.bytes_sent.median, rel=0.02)
    held = {part["what"]: part["bytes"] for part in told["held"]}
    assert held["parameters"] == counted.memory_bytes.parameters
    assert held["gradients"] == counted.memory_bytes.gradients
    assert held["optimizer state"] + held.get("float32 masters", 0) == counted.memory_bytes.optimizer
    assert told["config"]["gradient_clipping"] == 0.0


# --- DeepSpeed's own configuration ------------------------------------------------------------------------------------


def test_the_users_clipping_is_used(pool: Pool, tmp_path: Path) -> None:
    """With steps of a norm of 1e-3 · lr the weights hardly move."""
    (tmp_path / "own.json").write_text(
        '{"gradient_clipping": 0.001, "train_batch_size": "auto", "zero_optimization": {"stage": 2}}'
    )
    values = {**SAME, "engine": "deepspeed", "strategy": "zero2", "workers": 2, "weight_decay": 0.0, "epochs": 1}
    free = completed(pool, tmp_path, **values)
    clipped = completed(pool, tmp_path, **{**values, "deepspeed_config": str(tmp_path / "own.json")})
    assert abs(free.losses[-1] - free.losses[0]) > 10 * abs(clipped.losses[0] - free.losses[0])
    momentum = [v for name, v in final(tmp_path, clipped).items() if name.endswith("momentum_buffer")]
    assert 0 < sum(float((v**2).sum()) for v in momentum) ** 0.5 < 0.004


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"train_batch_size": 48}', "'train_batch_size' is 48, but the spec makes it 24: leave it out, or change the spec with --batch"),
        ('{"zero_optimization": {"zero_hpz_partition_size": 2}}', "zero_hpz_partition_size' is 2, but here that is said with --strategy"),
        ('{"gradient_accumulation_steps": 4}', "is 4, but the spec makes it 1.*--accumulate"),
        ('{"zero_optimization": {"stage": 3}}', "'zero_optimization.stage' is 3, but the spec makes it 2.*--strategy ddp, zero1"),
        ('{"zero_optimization": {"offload_param": {"device": "cpu"}}}', 'device\' is "cpu", but the spec makes it "none".*--offload all'),
        ('{"bfloat16": {"enabled": true}}', "'bf16.enabled' is true, but the spec makes it false.*--precision bf16"),
        ('{"optimizer": {"type": "Adam"}}', "'optimizer' is .*Adam.* said with --optimizer.*leave it out"),
        ('{"scheduler": {"type": "WarmupLR"}}', "'scheduler' is .*--schedule"),
        ('{"zero_optimization": true}', "'zero_optimization' is true; expected an object"),
        ("{gradient_clipping: 1}", "cannot be read as JSON"),
        ("[1]", "expected an object"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_with_key_values_and_flag(tmp_path: Path, text: str, says: str) -> None:
    own = tmp_path / "own.json"
    own.write_text(text)
    spec = tiny(tmp_path, engine="deepspeed", strategy="zero2", workers=2, deepspeed_config=str(own))
    with pytest.raises(ScalelabError, match=says) as caught:
        config.config(spec, derive(spec, strategies.degrees(spec), 1))
    assert str(caught.value).startswith(f"--deepspeed-config {own}: ")
    assert "\n" not in str(caught.value)


# --- what it can't do -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"strategy": "zero3", "precision": "fp64"}, "--precision fp64.*has fp32, bf16, fp16"),
        ({"strategy": "zero3", "workers": 4, "shard": 2}, "--shard 2.*shards over all workers"),
        ({"strategy": "zero2", "offload": "all"}, "--offload all.*has none, optimizer"),
        ({"strategy": "ddp", "offload": "optimizer"}, "--offload optimizer"),
        ({"strategy": "ddp", "compress": "fp16"}, "--compress fp16"),
        ({"strategy": "zero1", "compile": True}, "--compile"),
        ({"strategy": "ddp", "channels_last": "on"}, "--channels-last on"),
        ({"strategy": "pipeline", "pipeline_schedule": "gpipe"}, "--pipeline-schedule gpipe"),
        ({"strategy": "pipeline", "model": "odd:frozen", "model_args": {}}, "parameter '.*' is frozen"),
        ({"strategy": "zero1", "model": "odd:sometimes", "model_args": {}}, "has no gradient in some steps"),
        ({"strategy": "zero1", "deepspeed_config": "/nowhere.json"}, "--deepspeed-config /nowhere.json: no such file"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_starts(
    pool: Pool, tmp_path: Path, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(ScalelabError, match=says):
        train(pool, tmp_path / "runs", **{"workers": 2, "engine": "deepspeed", **values})
    assert not (tmp_path / "runs").exists()


def test_a_pipeline_with_clipping_is_refused(pool: Pool, tmp_path: Path) -> None:
    """Seen with DeepSpeed 0.19: gradients were scaled by the norm of the first stage's."""
    (tmp_path / "own.json").write_text('{"gradient_clipping": 1.0}')
    with pytest.raises(NotApplicable, match=r"'gradient_clipping' is 1\.0, .* over its first stage only"):
        train(pool, tmp_path, engine="deepspeed", strategy="pipeline", workers=2, deepspeed_config=str(tmp_path / "own.json"))


PADDED = """
import torch
from torch import nn

def build(num_classes):
    torch.use_deterministic_algorithms(True)  # uninitialised memory is filled with NaN
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.SiLU(), nn.Flatten(), nn.Linear(180, num_classes))
"""


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
def test_what_pads_a_shard_is_no_weight(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    (tmp_path / "padded.py").write_text(PADDED)
    values = {**SAME, "model": f"{tmp_path}/padded.py:build", "model_args": {}}
    spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy=strategy, workers=3)
    assert apart(tmp_path, spread, reference(**values)) < CLOSE


SLY = """
from torch import nn

class Sly(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.a, self.b, self.calls = nn.Flatten(), nn.Linear(192, 4), nn.Linear(192, 4), 0

    def forward(self, x):
        x = self.flat(x)
        self.calls += self.training
        return self.a(x) if self.training and self.calls == 3 else self.a(x) + self.b(x)

def build(num_classes):
    return Sly()
"""


def test_weights_that_are_not_finite_are_seen_in_shards(pool: Pool, tmp_path: Path) -> None:
    """The last update breaks them, so no loss shows it; the shards of zero3 are not the module's own tensors."""
    values = {"engine": "deepspeed", "workers": 2, "epochs": 1, "steps": 1, "lr": 1e38, "weight_decay": 1e3}
    own = tmp_path / "own.json"
    own.write_text('{"zero_optimization": {"stage3_param_persistence_threshold": 0}}')
    record = train(pool, tmp_path, **values, strategy="zero3", deepspeed_config=str(own))
    assert record.failure is not None
    assert "the weights are no longer finite after step 1" in record.failure.error


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_a_gradient_that_is_missing_later_ends_the_run(pool: Pool, tmp_path: Path, strategy: str) -> None:
    """Never wrong: DeepSpeed would take it for zero, and decay the parameter."""
    (tmp_path / "sly.py").write_text(SLY)
    own = {"model": f"{tmp_path}/sly.py:build", "model_args": {}}
    record = train(pool, tmp_path, **own, engine="deepspeed", strategy=strategy, workers=2)
    assert record.status == "failed"
    assert record.failure is not None
    assert "parameter 'b.bias' had no gradient in this step" in record.failure.error


# --- starting ---------------------------------------------------------------------------------------------------------


def test_it_is_quiet_and_compiles_nothing(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, engine="deepspeed", strategy="zero3", workers=2, epochs=1)
    assert (tmp_path / record.run / "logs" / "rank-0.txt").read_text() == ""


COUNT = """
import os, torch
import scalelab.worker.preload
before = len(os.listdir("/proc/self/task"))
import scalelab.strategies.deepspeed_engine.preload
assert len(os.listdir("/proc/self/task")) == before
torch.set_num_interop_threads(1)  # refused once torch's pool has started
"""


def test_preloading_starts_no_thread() -> None:
    """A fork of a process with threads would hang in the first that it waits for."""
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_configuration_needs_neither_deepspeed_nor_torch() -> None:
    line = "import sys, scalelab.strategies.deepspeed_engine.config; assert not {'torch', 'deepspeed'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], check=False).returncode == 0
