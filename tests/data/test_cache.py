"""The cache of decoded data: right after damage, races and on folders that cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scalelab.data import cache
from scalelab.data.dataset import silent


class Source:
    """A file, and a builder of arrays from it that counts how often it is asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.builds = path, 0
        path.write_bytes(b"\x05" * 10_000)

    def build(self) -> dict[str, np.ndarray]:
        self.builds += 1
        data = np.frombuffer(self.path.read_bytes(), np.uint8)
        return {"images": data.reshape(-1, 10), "labels": np.arange(len(data) // 10)}

    def load(self, progress=silent, version: str = "1") -> dict[str, np.ndarray]:
        return cache.cached("test", version, [self.path], self.build, progress)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "source.bin")


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) and one[k].dtype == two[k].dtype for k in one)


def test_the_second_load_builds_nothing_and_gives_the_same(source):
    first, second = source.load(), source.load()
    assert source.builds == 1
    assert same(first, second)
    assert same(second, source.build())


def test_loaded_arrays_are_maps_whose_changes_never_reach_the_file(source):
    source.load()
    arrays = source.load()
    assert isinstance(arrays["images"].base, np.memmap)
    arrays["images"][:] = 99
    assert source.load()["images"].max() == 5
    assert source.builds == 1


def test_a_changed_source_or_version_is_built_anew(source):
    source.load()
    source.path.write_bytes(b"\x06" * 10_000)
    os.utime(source.path, ns=(1, time.time_ns() + 10**9))
    assert source.load()["images"].max() == 6
    source.load(version="2")
    assert source.builds == 3


def damages() -> dict[str, Callable[[Path], object]]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)

    return {
        "truncated": lambda path: path.write_bytes(path.read_bytes()[:-10]),
        "empty": lambda path: path.write_bytes(b""),
        "gone": lambda path: path.unlink(),
        "flipped": flip,
        "zeroed": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2].ljust(path.stat().st_size, b"\0")),
        "other": lambda path: path.write_bytes(b"something else entirely"),
    }


@pytest.mark.parametrize("damage", damages())
@pytest.mark.parametrize("suffix", ["images.npy", "labels.npy", "json"])
def test_a_damaged_entry_is_rebuilt(source, cache_folder, damage, suffix):
    expected = source.load()
    expected = {key: array.copy() for key, array in expected.items()}
    (victim,) = cache_folder.glob(f"*.{suffix}")
    damages()[damage](victim)
    assert same(source.load(), expected)
    assert source.builds == 2
    assert same(source.load(), expected)
    assert source.builds == 2


def test_a_pickle_in_the_cache_is_never_loaded(source, cache_folder, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "witness"),)

    source.load()
    (victim,) = cache_folder.glob("*.labels.npy")
    array = np.empty(1, dtype=object)
    array[0] = Attack()
    np.save(victim, array, allow_pickle=True)
    source.load()
    assert source.builds == 2
    assert not (tmp_path / "witness").exists()


def test_what_the_builder_raises_passes_and_nothing_is_kept(source, cache_folder):
    def fail() -> dict[str, np.ndarray]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.cached("test", "1", [source.path], fail, silent)
    assert list(cache_folder.iterdir()) == []


@pytest.mark.parametrize("where", ["/proc/no", "file/cache"])
def test_without_a_folder_to_write_the_data_is_loaded_and_told(source, tmp_path, monkeypatch, where):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCALELAB_CACHE", str(tmp_path / where))
    told: list[str] = []
    for builds in (1, 2):
        assert source.load(told.append)["images"].max() == 5
        assert source.builds == builds
    assert "no cache" in told[0]
    assert "SCALELAB_CACHE" in told[0]


def test_a_write_that_fails_halfway_is_told_and_leaves_no_half_file(cache_folder):
    """A limit on the size of files stops the write in the middle, as a full disk does."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "import numpy as np; from scalelab.data import cache\n"
        "r = cache.cached('test', '1', [], lambda: {'images': np.ones((4096, 1024), np.uint8)}, print)\n"
        "print(r['images'].sum())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    told, answer = result.stdout.splitlines()
    assert "File too large" in told
    assert answer == str(4096 * 1024)
    assert list(cache_folder.iterdir()) == []


def test_xdg_cache_home_is_respected(monkeypatch, tmp_path):
    monkeypatch.delenv("SCALELAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "scalelab"


RACER = """
import sys, time
import numpy as np
from pathlib import Path
from scalelab.data import cache
marks = Path(sys.argv[1])
def build():
    (marks / f"built-{sys.argv[2]}").touch()
    time.sleep(0.5)
    return {"images": np.arange(300_000, dtype=np.uint8).reshape(-1, 100)}
(marks / f"ready-{sys.argv[2]}").touch()
while len(list(marks.glob("ready-*"))) < 2:
    time.sleep(0.001)
print(int(cache.cached("race", "1", [], build, print)["images"].sum(dtype=np.int64)))
"""


def test_two_processes_that_start_together_build_once(tmp_path, cache_folder):
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), str(k)], stdout=subprocess.PIPE, text=True) for k in (0, 1)
    ]
    answers = [racer.communicate(timeout=100)[0] for racer in racers]
    expected = int(np.arange(300_000, dtype=np.uint8).sum(dtype=np.int64))
    assert answers == [f"{expected}\n"] * 2
    assert len(list(tmp_path.glob("built-*"))) == 1
    assert not list(cache_folder.glob(".*"))


WRITER = """
import sys, time
import numpy as np
from scalelab.data import cache
stem = cache.folder() / "race"
end = time.monotonic() + 2
data = {"images": np.arange(300_000, dtype=np.uint8), "labels": np.arange(1000)}
loads = 0
while time.monotonic() < end or loads < 4:  # a disk may be slow
    cache._store(stem, data)  # without the lock, as on a file system that has none
    found = cache._load(stem)
    assert found is not None, "half an entry was seen"
    assert all(np.array_equal(found[key], data[key]) for key in data)
    loads += 1
print(loads)
"""


def test_two_writers_without_a_lock_never_show_half_an_entry(cache_folder):
    cache_folder.mkdir(parents=True)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for writer in writers:
        out, err = writer.communicate(timeout=100)
        assert writer.returncode == 0, err
        assert int(out) > 3
    assert not list(cache_folder.glob(".*"))
