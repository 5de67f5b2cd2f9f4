"""Trainings whose images are decoded while they run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalelab.batch import Derived
from scalelab.launch.pool import Pool
from scalelab.record.schema import Figure
from scalelab.worker import waiting
from tests import trainings
from tests.trainings import completed, equal, final, train


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs, 32 to train on and 8 to test."""
    return trainings.pictures(tmp_path_factory.mktemp("pictures"))


def values(root: Path, **more: object) -> dict[str, object]:
    return {"data": f"folder:{root}", "resize": 8, "batch": 8, "epochs": 2, "train_limit": None, "test_limit": None, **more}


def test_streamed_losses_weights_and_accuracies_are_those_from_memory(pool: Pool, tmp_path: Path, pictures: Path) -> None:
    held, streamed = (
        completed(pool, tmp_path, stream=stream, strategy="ddp", workers=2, accumulate=2, **values(pictures))
        for stream in ("never", "always")
    )
    assert held.losses == streamed.losses
    assert len(held.losses) == 8
    assert equal(final(tmp_path, held), final(tmp_path, streamed))
    assert [e.test_loss for e in held.epochs] == [e.test_loss for e in streamed.epochs]
    assert held.data is not None
    assert streamed.data is not None
    assert (held.data.streamed, streamed.data.streamed) == (False, True)
    assert (held.derived.data_threads, streamed.derived.data_threads) == (0, 1)
    assert any("decoded while the training runs" in note for note in streamed.notes)


def test_a_training_that_waits_for_its_data_says_so(pool: Pool, tmp_path: Path) -> None:
    """Large images, one thread to decode them, and next to nothing to compute."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    for part in ("train", "test"):
        for label in range(2):
            folder = tmp_path / "large" / part / str(label)
            folder.mkdir(parents=True)
            for k in range(4):
                coarse.rotate(90 * k).resize((1200, 900)).save(folder / f"{k}.png", compress_level=1)
    more = {"stream": "always", "data_workers": 1, "batch": 2, "epochs": 10, "evaluate": False, "checkpoint": False}
    record = completed(pool, tmp_path / "runs", **values(tmp_path / "large", **more))
    share = record.data_wait_share
    assert share.n == 4
    assert share.ci95 is not None
    assert share.ci95[0] > 0.5
    (said,) = [note for note in record.notes if note.startswith("the data was the bottleneck")]
    assert "1 thread of each worker" in said


@pytest.mark.parametrize(
    ("interval", "said"),
    [(None, None), ((0.1, 0.9), None), ((0.25, 0.6), "slowed the training"), ((0.55, 0.9), "was the bottleneck")],
)
def test_what_is_said_needs_the_whole_interval(interval: tuple[float, float] | None, said: str | None) -> None:
    derived = Derived(batch=8, micro_batch=8, accumulate=1, data=1, shard=1, pipe=1, threads=1, data_threads=2)
    note = waiting.note(Figure(unit="share", median=0.58, n=9, ci95=interval), True, derived)
    if said is None or note is None:
        assert note is said
    else:
        assert f"{said}: 58 % of a step" in note
        assert "2 threads of each worker" in note


def test_a_damaged_image_ends_the_run_with_its_name(pool: Pool, tmp_path: Path, pictures: Path) -> None:
    """No pixel of the test images is looked at before they are needed."""
    shutil.copytree(pictures, tmp_path / "broken")
    victim = tmp_path / "broken" / "test" / "1" / "2.jpg"
    victim.write_bytes(victim.read_bytes()[:-100])
    spec = values(tmp_path / "broken", stream="always", strategy="ddp", workers=2)
    record = train(pool, tmp_path / "runs", **spec)
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.expected
    assert f"{victim} does not decode" in record.failure.error
