"""The registry of strategies, and the contract of each."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from scalelab import strategies
from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.spec import Spec
from scalelab.strategies import ELSEWHERE, STRATEGIES
from scalelab.strategies.base import Strategy
from tests.trainings import Reference, completed, train


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_file_starts_with_what_moves_when_and_how_many_bytes(name: str) -> None:
    text = importlib.import_module(f"scalelab.strategies.{STRATEGIES[name].where['torch'].partition(':')[0]}").__doc__ or ""
    assert "\nmoves: " in text
    if name != "single":
        assert "\nwhen:  " in text
        assert "\nbytes: " in text


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_class_loads(name: str) -> None:
    assert issubclass(strategies.load(name, "torch"), Strategy)
    assert len(STRATEGIES[name].says) > 10


@pytest.mark.parametrize("name", STRATEGIES)
def test_degrees_multiply_to_the_workers(name: str) -> None:
    workers = 1 if STRATEGIES[name].axis is None else 3
    data, shard, pipe = strategies.degrees(Spec(strategy=name, workers=workers))
    assert data * shard * pipe == workers


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_from_elsewhere_are_answered_with_ours(name: str) -> None:
    with pytest.raises(ScalelabError, match=f"is called {ELSEWHERE[name]} here"):
        strategies.entry(name)


def test_an_unknown_name_is_told_with_the_nearest_and_the_list() -> None:
    with pytest.raises(ScalelabError) as caught:
        strategies.entry("zero5")
    assert "unknown strategy 'zero5' (did you mean 'zero" in str(caught.value)
    assert f"{', '.join(STRATEGIES)} or path/to/file.py:Class" in str(caught.value)


def test_single_is_one_process() -> None:
    with pytest.raises(ScalelabError, match="use --workers 1"):
        strategies.degrees(Spec(strategy="single", workers=2))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "dp"])  # it needs GPUs: test_options
def test_every_strategy_trains_on_one_worker(pool: Pool, tmp_path: Path, reference: Reference, name: str) -> None:
    _, alone = reference(precision="fp64")
    assert completed(pool, tmp_path, precision="fp64", strategy=name).losses == pytest.approx(alone.losses, rel=1e-11)


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_an_optimizer_of_whole_tensors_is_refused_where_tensors_are_cut(pool: Pool, tmp_path: Path, name: str) -> None:
    with pytest.raises(ScalelabError, match=r"looks at whole tensors.*use ddp or zero1"):
        train(pool, tmp_path, strategy=name, workers=2, optimizer="adafactor")


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_channels_last_is_refused_where_it_cannot_be(pool: Pool, tmp_path: Path, name: str) -> None:
    with pytest.raises(ScalelabError, match="can't keep that layout"):
        train(pool, tmp_path, strategy=name, workers=2, channels_last="on")


OWN = """
import torch.distributed as dist
from scalelab.strategies.base import Strategy

class Naive(Strategy):
    def wrap(self, model):
        return model

    def step(self, micro_batches):
        real = self.optimizer.step
        def averaged():
            for parameter in self.module.parameters():
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.world.size
            real()
        self.optimizer.step = averaged
        try:
            return super().step(micro_batches)
        finally:
            self.optimizer.step = real

class NotOne:
    pass
"""


def test_a_strategy_of_the_users_own(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    values = {"precision": "fp64", "workers": 2, "epochs": 2}
    own = completed(pool, tmp_path / "runs", strategy=f"{tmp_path}/own.py:Naive", **values)
    ddp = completed(pool, tmp_path / "runs", strategy="ddp", **values)
    assert own.losses == pytest.approx(ddp.losses, rel=1e-11)


def test_a_class_that_is_no_strategy_is_refused(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(ScalelabError, match=r"is not a subclass of scalelab\.strategies\.base\.Strategy"):
        train(pool, tmp_path / "runs", strategy=f"{tmp_path}/own.py:NotOne", workers=2)
    assert not (tmp_path / "runs").exists()


def test_parameters_that_do_not_divide_over_the_workers(pool: Pool, tmp_path: Path) -> None:
    """FSDP pads a first dimension of 4 over 3 ranks; the padding must not reach the result."""
    values = {"precision": "fp64", "batch_norm": "sync", "epochs": 1, "model_args": {"width": 5}}
    alone = completed(pool, tmp_path, **values)
    for name in ("zero2", "zero3"):
        assert completed(pool, tmp_path, **values, strategy=name, workers=3).losses == pytest.approx(alone.losses, rel=1e-11)
