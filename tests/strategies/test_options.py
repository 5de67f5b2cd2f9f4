"""What only some strategies have: it computes the same, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scalelab.errors import NotApplicable, ScalelabError
from scalelab.launch.pool import Pool
from scalelab.spec import Spec
from scalelab.strategies import degrees, load
from scalelab.strategies.base import OPTIONS
from scalelab.strategies.blocks import layers, recompute
from tests.strategies.test_pipeline import BLOCKS
from tests.trainings import Reference, completed, final, largest_difference, train

EXACT: dict[str, Any] = {"precision": "fp64", "batch_norm": "sync", "epochs": 1, "accumulate": 2}
SAME: dict[str, dict[str, Any]] = {
    "HSDP": {"strategy": "zero3", "workers": 4, "shard": 2},
    "HSDP of zero2": {"strategy": "zero2", "workers": 4, "shard": 2},
    "replicas only": {"strategy": "zero3", "workers": 2, "shard": 1},
    "offload of zero2": {"strategy": "zero2", "workers": 2, "offload": "all"},
    "offload of zero3": {"strategy": "zero3", "workers": 2, "offload": "all"},
    "offload and HSDP": {"strategy": "zero3", "workers": 4, "shard": 2, "offload": "all"},
    "recompute, one process": {"recompute": True},
    "recompute of ddp": {"strategy": "ddp", "workers": 2, "recompute": True},
    "recompute of zero3": {"strategy": "zero3", "workers": 2, "recompute": True},
    "recompute of a pipeline": {"strategy": "pipeline", "workers": 2, "recompute": True},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A chain of plain layers, and one of modules that are made of others."""
    file = tmp_path_factory.mktemp("models") / "blocks.py"
    file.write_text(BLOCKS)
    return {"flat": {"model": "basic_cnn"}, "blocks": {"model": f"{file}:build", "model_args": {}}}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("model", ["flat", "blocks"])
def test_an_option_does_not_change_what_is_computed(
    pool: Pool, tmp_path: Path, reference: Reference, models: dict[str, dict[str, Any]], name: str, model: str
) -> None:
    values = {**EXACT, **models[model], "train_limit": 48}
    out, alone = reference(**values)
    if name == "recompute of a pipeline" and model == "flat":
        with pytest.raises(NotApplicable, match="'basic_cnn' has no module made of others: only such ones"):
            train(pool, tmp_path / "runs", **values, **SAME[name])
        return
    found = completed(pool, tmp_path, **values, **SAME[name])
    assert found.losses == pytest.approx(alone.losses, rel=1e-10)
    assert largest_difference(final(tmp_path, found), final(out, alone)) < 1e-9


@pytest.mark.parametrize("batch_norm", ["local", "sync"])
def test_bf16_parameters_keep_float32_masters(pool: Pool, tmp_path: Path, batch_norm: str) -> None:
    values = {"epochs": 1, "strategy": "zero3", "workers": 2, "batch_norm": batch_norm}
    plain = completed(pool, tmp_path, **values)
    narrow = completed(pool, tmp_path, **values, param_dtype="bf16")
    assert narrow.losses == pytest.approx(plain.losses, rel=0.05)
    assert narrow.losses != plain.losses
    assert {str(value.dtype) for name, value in final(tmp_path, narrow).items() if name.endswith("weight")} == {"float32"}


def test_the_loss_of_bf16_parameters_is_float32(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=1, strategy="zero3", param_dtype="bf16")
    losses = torch.tensor(record.losses)
    assert (losses != losses.bfloat16().float()).all()


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_is_refused_by_those_that_do_not_have_it(option: str) -> None:
    value = {"none": "all", "1f1b": "gpipe", "fp32": "bf16"}.get(str(OPTIONS[option]), 7)
    value = {"compress": "fp16", "split": "x", "deepspeed_config": "x.json"}.get(option, value)
    spec = Spec(strategy="single", **{option: value})
    with pytest.raises(NotApplicable, match=f"--{option.replace('_', '-')} .*: --strategy single with torch has no such option"):
        load("single", "torch").check(spec)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"strategy": "ddp", "shard": 2}, "--shard 2: --strategy ddp has no such degree; zero1, zero2, zero3 have"),
        ({"strategy": "zero3", "stages": 2}, "--stages 2: --strategy zero3 has no such degree; model, pipeline have"),
        ({"strategy": "pipeline", "stages": 3}, "--stages 3: does not divide --workers 4; these do: 1, 2, 4"),
        ({"strategy": "zero3", "shard": 8}, "--shard 8: does not divide --workers 4; these do: 1, 2, 4"),
    ],
)
def test_degrees_that_do_not_multiply_to_the_workers_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ScalelabError, match=told):
        degrees(Spec(workers=4, **values))


def test_hybrids_are_degrees() -> None:
    assert degrees(Spec(strategy="pipeline", workers=4, stages=2)) == (2, 1, 2)
    assert degrees(Spec(strategy="zero3", workers=6, shard=2)) == (3, 2, 1)
    assert degrees(Spec(strategy="model", workers=3)) == (1, 1, 3)


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_offload_of_the_optimizer_alone_is_deepspeeds(pool: Pool, tmp_path: Path, strategy: str) -> None:
    with pytest.raises(NotApplicable, match="use --offload all, or --engine deepspeed"):
        train(pool, tmp_path, strategy=strategy, workers=2, offload="optimizer")


ATTENTIVE = """
from torch import nn

class Attentive(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.proj, self.head = nn.Linear(8, 16), nn.Linear(16, num_classes)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        rows = self.proj(x.mean(1))
        return self.head((rows + self.attention(rows, rows, rows)[0]).mean(1))
"""


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_attention_larger_than_a_block_is_gathered_as_one(pool: Pool, tmp_path: Path, strategy: str) -> None:
    """It takes its projection's weight without calling the projection, which therefore can't be a block."""
    (tmp_path / "attentive.py").write_text(ATTENTIVE)
    values = {**EXACT, "model": f"{tmp_path}/attentive.py:Attentive", "model_args": {}, "train_limit": 48}
    alone = completed(pool, tmp_path, **values)
    found = completed(pool, tmp_path, **values, strategy=strategy, workers=2)
    assert found.losses == pytest.approx(alone.losses, rel=1e-10)


TURNED = """
import torch
from torch import nn

def build(num_classes):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(128, num_classes))
    model[5].weight = nn.Parameter(torch.randn(128, num_classes).t() / 11)
    return model.to(memory_format=torch.channels_last)
"""


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_parameters_that_a_users_model_laid_out_otherwise_are_sharded_too(pool: Pool, tmp_path: Path, strategy: str) -> None:
    (tmp_path / "turned.py").write_text(TURNED)
    values = {**EXACT, "model": f"{tmp_path}/turned.py:build", "model_args": {}, "train_limit": 48}
    alone = completed(pool, tmp_path, **values)
    found = completed(pool, tmp_path, **values, strategy=strategy, workers=2)
    assert found.losses == pytest.approx(alone.losses, rel=1e-10)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_dp_needs_two_gpus(pool: Pool, tmp_path: Path, device: str) -> None:
    if torch.cuda.device_count() > 1:
        pytest.skip("here are several GPUs")
    with pytest.raises(NotApplicable, match=r"needs two or more: .*use --strategy ddp --workers N"):
        train(pool, tmp_path, strategy="dp", device=device)


def test_a_parameter_that_only_some_images_use_is_refused_where_ranks_must_agree(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match=r"uses parameter 'more\.bias' for some images only"):
        train(pool, tmp_path, model="odd:choosy", model_args={}, strategy="zero3", workers=2)


def test_recomputation_saves_activations() -> None:
    """What autograd saves for the backward pass, with and without."""
    model = nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU()) for _ in range(6)))
    x = torch.randn(4, 8, 16, 16, requires_grad=True)
    plain = saved(model, x)
    assert len(layers(model)) == 6
    assert saved(recompute(model), x) < plain / 3


def saved(model: nn.Module, x: torch.Tensor) -> int:
    sizes: dict[int, int] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        sizes[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        out = model(x)
    del out
    return sum(sizes.values())


BARE = """
from torch import nn

class Bare(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.linear = nn.Linear(192, classes)

    def forward(self, x):
        return self.linear(x.flatten(1))

def build(num_classes):
    return Bare(num_classes)
"""


def test_a_model_without_blocks_cannot_be_recomputed(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(BARE)
    with pytest.raises(ScalelabError, match=r"--recompute: model '.*bare\.py:build' has no module made of others"):
        train(pool, tmp_path / "runs", model=f"{tmp_path}/bare.py:build", model_args={}, recompute=True)


AROUND = """
from torch import nn
from torch.nn.functional import linear, relu

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(192, 8), nn.Linear(8, 64), nn.Linear(64, num_classes)

    def forward(self, x):
        return self.c(linear(relu(self.a(x.flatten(1))), self.b.weight, self.b.bias))

class InPlace(Net):
    def forward(self, x):
        h = relu(self.a(x.flatten(1)))
        h.mul_(2)
        return self.c(self.b(h))

def build(num_classes):
    return Net(num_classes)

def in_place(num_classes):
    return InPlace(num_classes)
"""


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_a_weight_used_without_its_module_is_refused_where_modules_are_gathered(
    pool: Pool, tmp_path: Path, strategy: str
) -> None:
    (tmp_path / "net.py").write_text(AROUND)
    values = {"model": f"{tmp_path}/net.py:build", "model_args": {}, "workers": 2, "epochs": 1}
    with pytest.raises(NotApplicable, match="uses parameters of its module 'b' without calling it"):
        train(pool, tmp_path / "runs", **values, strategy=strategy)
    completed(pool, tmp_path / "runs", **values, strategy="ddp")


def test_a_backward_pass_that_fails_is_told_before_anything_starts(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(AROUND)
    with pytest.raises(ScalelabError, match=r"its backward pass fails: .*modified by an inplace operation"):
        train(pool, tmp_path / "runs", model=f"{tmp_path}/net.py:in_place", model_args={})
    assert not (tmp_path / "runs").exists()
