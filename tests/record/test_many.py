"""Many small files of one folder, read at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scalelab.record import many

AT_ONCE = pytest.mark.parametrize("patience", [1e9, 0.0], ids=["alone", "by threads"])


def written(folder: Path, count: int) -> dict[str, bytes]:
    files = {f"{number}.json": f"{{{number}}}".encode() * (number % 50) for number in range(count)}
    for name, body in files.items():
        (folder / name).write_bytes(body)
    return files


@AT_ONCE
def test_every_file_is_read_once_and_whole(tmp_path: Path, patience: float) -> None:
    files = written(tmp_path, 500)
    found = list(many.bodies(tmp_path, lambda name: True, patience))
    assert len(found) == len(files)
    assert dict(found) == files


@AT_ONCE
def test_a_large_file_is_read_to_its_end(tmp_path: Path, patience: float) -> None:
    written(tmp_path, many.FIRST)
    body = os.urandom(3 * many.PART + 1)
    (tmp_path / "large").write_bytes(body)
    assert dict(many.bodies(tmp_path, lambda name: True, patience))["large"] == body


@AT_ONCE
def test_only_what_is_wanted_is_read(tmp_path: Path, patience: float) -> None:
    files = written(tmp_path, 300)
    wanted = {name for name in files if "7" in name}
    assert dict(many.bodies(tmp_path, wanted.__contains__, patience)).keys() == wanted


@AT_ONCE
def test_what_cannot_be_read_is_left_out(tmp_path: Path, patience: float) -> None:
    files = written(tmp_path, 300)
    for number in range(0, 300, 30):
        (tmp_path / f"{number}.json").unlink()
        (tmp_path / f"{number}.json").mkdir()
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    found = dict(many.bodies(tmp_path, lambda name: True, patience))
    assert found == {name: body for name, body in files.items() if not (tmp_path / name).is_dir()}


@AT_ONCE
def test_no_descriptor_is_left_open(tmp_path: Path, patience: float) -> None:
    written(tmp_path, 300)
    before = len(os.listdir("/proc/self/fd"))
    list(many.bodies(tmp_path, lambda name: True, patience))
    next(many.bodies(tmp_path, lambda name: True, patience))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(many.bodies(tmp_path / "none", lambda name: True))
