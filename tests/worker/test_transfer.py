"""Transfer learning, end to end: another run's weights, another number of classes, a part that is not trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from tests.trainings import SPREAD, completed, equal, final, largest_difference, train

BODY = ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked")
"""the frozen part: a convolution and its batch norm"""
HEAD = ("13.weight", "13.bias")
FROZEN: dict[str, Any] = {"classes": 6, "freeze": "0.*,1.*", "lr": 0.1}


@pytest.fixture(scope="module")
def source(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with 4 classes."""
    out = tmp_path_factory.mktemp("source")
    return out / completed(pool, out, epochs=3).run


def model_of(folder: Path) -> dict[str, np.ndarray]:
    (file,) = {*(folder / "checkpoints").glob("step-00000012.safetensors")}
    return {name.removeprefix("model/"): value for name, value in load_file(file).items() if name.startswith("model/")}


def test_what_is_frozen_stays_as_it_was_and_the_rest_learns(pool: Pool, tmp_path: Path, source: Path) -> None:
    record = completed(pool, tmp_path, weights=str(source / "checkpoints" / "step-00000012.safetensors"), epochs=6, **FROZEN)
    before, after = model_of(source), final(tmp_path, record)
    for name in BODY:
        assert np.array_equal(after[f"model/{name}"], before[name]), name
    assert not np.array_equal(after["model/4.weight"], before["4.weight"])
    assert record.accuracy is not None
    assert record.accuracy > 0.9
    assert "optimizer/0.weight/momentum_buffer" not in after


def test_the_record_tells_the_weights_the_head_and_what_is_trained(pool: Pool, tmp_path: Path, source: Path) -> None:
    record = completed(pool, tmp_path, weights=str(source), steps=1, **FROZEN)
    assert record.model is not None
    assert record.model.trained == record.model.parameters - 4 * 27 - 8
    assert record.notes[: len(record.model.notes)] == record.model.notes
    origin, head, frozen = record.model.notes
    assert origin.startswith(f"initial weights: {source}/checkpoints/step-")
    assert head == "the head (13.weight, 13.bias) begins with new values: the weights are for 4 classes, the data has 6"
    assert "116 of" in frozen


@pytest.mark.parametrize("strategy", [*SPREAD, "pipeline", "local-sgd"])
def test_every_strategy_keeps_what_is_frozen_and_trains_what_single_trains(
    pool: Pool, tmp_path: Path, source: Path, strategy: str
) -> None:
    common = {"weights": str(source), "steps": 3, "precision": "fp64", "batch_norm": "sync", **FROZEN}
    spread = {"sync_every": 1} if strategy == "local-sgd" else {}
    alone, other = (
        completed(pool, tmp_path, **common, **given) for given in ({}, {"strategy": strategy, "workers": 2, **spread})
    )
    one, two = ({n: v for n, v in final(tmp_path, record).items() if n.startswith("model/")} for record in (alone, other))
    assert largest_difference(one, two) < 1e-12
    assert all(np.array_equal(two[f"model/{name}"], one[f"model/{name}"]) for name in BODY)


def test_a_resumed_run_takes_its_own_checkpoint_and_needs_the_file_no_more(pool: Pool, tmp_path: Path, source: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes((source / "checkpoints" / "step-00000012.safetensors").read_bytes())
    whole = completed(pool, tmp_path, weights=str(file), epochs=2, **FROZEN)
    half = completed(pool, tmp_path, weights=str(file), epochs=2, stop_after_epoch=1, **FROZEN)
    file.unlink()
    resumed = train(pool, tmp_path, resume=tmp_path / half.run)
    assert resumed.status == "completed"
    assert equal(final(tmp_path, whole), final(tmp_path, resumed))
    assert resumed.notes[:3] == half.notes[:3]
    assert resumed.notes.count(half.notes[2]) == 1


def test_a_damaged_checkpoint_of_a_run_is_not_begun_with(pool: Pool, tmp_path: Path, source: Path) -> None:
    """One bit of a value: the file reads as well as before, and only its checksum tells."""
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    for file in (copy / "checkpoints").glob("*.safetensors"):
        body = bytearray(file.read_bytes())
        body[-3] ^= 1
        file.write_bytes(body)
    with pytest.raises(ScalelabError, match="is damaged: its checksum") as caught:
        train(pool, tmp_path, weights=str(copy), steps=1, **FROZEN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"freeze": "0.*"}, {"weights": "other.pt"}])
def test_a_resume_cannot_change_what_a_run_began_with(pool: Pool, tmp_path: Path, source: Path, change: dict[str, str]) -> None:
    half = completed(pool, tmp_path, weights=str(source), steps=2, **FROZEN)
    with pytest.raises(ScalelabError, match=f"--resume can't change --{next(iter(change))}"):
        train(pool, tmp_path, resume=tmp_path / half.run, steps=4, **change)


def test_a_folder_without_a_checkpoint_is_refused_before_the_start(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScalelabError, match="is a folder without a checkpoint"):
        train(pool, tmp_path / "out", weights=str(tmp_path / "empty"))
    assert not (tmp_path / "out").exists()
