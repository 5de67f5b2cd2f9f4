"""Engine deepspeed: the user's own configuration, and what it can't do is refused before the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab import strategies
from scalelab.batch import derive
from scalelab.errors import NotApplicable, ScalelabError
from scalelab.launch.pool import Pool
from scalelab.strategies.deepspeed_engine import config
from tests.strategies.deepspeed.same import SAME
from tests.trainings import completed, final, tiny, train


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
