"""``--weights`` names a file, a folder or a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.cli.flags import FILES, Parser, add_spec, values_of
from scalelab.launch.pool import Pool
from scalelab.models.weights import READERS
from tests.trainings import completed


def weights(*words: object) -> object:
    parser = Parser("train", "", "")
    add_spec(parser)
    return values_of(parser.parse([str(word) for word in words]))["weights"]


def test_a_run_may_have_a_dot_in_its_name(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, name="lr-0.1", steps=1)
    assert weights("--weights", "lr-0.1", "--out", tmp_path) == str(tmp_path / record.run)


@pytest.mark.parametrize("name", ["w.pt", "some/where/w.safetensors"])
def test_a_file_stays_a_file(name: str) -> None:
    assert weights("--weights", name) == name


def test_the_files_are_those_that_can_be_read() -> None:
    assert set(FILES) == set(READERS)
