"""Small copies of what the loaders read: archives, folders and Parquet made by the tests."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from scalelab.errors import ScalelabError

BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own."""
    monkeypatch.setenv("SCALELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextlib.contextmanager
def _refused(*parts: str) -> Iterator[None]:
    with pytest.raises(ScalelabError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_status == 2
    for part in parts:
        assert part in message


@pytest.fixture
def refused() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """``with refused("part", ...)``: a ScalelabError of one line that holds every part."""
    return _refused


def batch_arrays(name: str, count: int = 4) -> tuple[np.ndarray, list[int]]:
    """uint8 [count, 3072] and labels of one batch, different for each name."""
    generator = np.random.default_rng(BATCHES.index(name))
    return generator.integers(0, 256, (count, 3072), dtype=np.uint8), [int(k) for k in generator.integers(0, 10, count)]


def write_batches(folder: Path, **other: bytes) -> Path:
    """An extracted archive in ``folder``; ``other`` replaces the bytes of a batch."""
    folder.mkdir(parents=True)
    for name in BATCHES:
        data, labels = batch_arrays(name)
        # Protocol 2 with byte keys: as the official files were written.
        body = pickle.dumps({b"data": data, b"labels": labels, b"batch_label": b"a batch"}, protocol=2)
        (folder / name).write_bytes(other.get(name, body))
    return folder


@pytest.fixture
def batches(tmp_path: Path) -> Callable[..., Path]:
    """Makes a cifar-10-batches-py; keyword arguments replace the bytes of a batch."""
    return lambda **other: write_batches(tmp_path / "data" / "cifar-10-batches-py", **other)


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., tuple[Path, str]]:
    """Makes an archive such as the official one; gives its path and MD5."""

    def make(path: Path | None = None, **other: bytes) -> tuple[Path, str]:
        path = path or tmp_path / "data" / "cifar-10-python.tar.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = write_batches(tmp_path / "to-pack" / "cifar-10-batches-py", **other)
        with tarfile.open(path, "w:gz") as tar:
            tar.add(folder, folder.name)
        return path, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()

    return make


def png(pixels: np.ndarray) -> bytes:
    """Encoded without loss, so that a test can compare."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def hub(tmp_path: Path) -> Callable[..., Path]:
    """Writes train.parquet and test.parquet; arguments replace the training rows, a column's name, or the labels."""

    def make(
        train: list[bytes | None] | None = None, labels: list[int] | None = None, column: str = "img", label: str = "label"
    ) -> Path:
        folder = tmp_path / "hub"
        folder.mkdir(exist_ok=True)
        generator = np.random.default_rng(0)
        for part, count in (("train", 12), ("test", 6)):
            images: list[bytes | None] = [png(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]
            numbers = [k % 10 for k in range(count)]
            if part == "train":
                images, numbers = train or images, labels or (numbers if train is None else [k % 10 for k in range(len(train))])
            rows = [{"bytes": image, "path": f"{k}.png"} for k, image in enumerate(images)]
            parquet.write_table(pa.table({column: rows, label: numbers}), folder / f"{part}.parquet")
        return folder

    return make


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of class folders; ``size(k)`` is the (height, width) of picture k, ``form`` its extension."""

    def make(
        classes: int = 2, count: int = 10, size: Callable[[int], tuple[int, int]] = lambda k: (12, 10), form: str = "png",
        parts: tuple[str, ...] = ("",), name: str = "pictures",
    ) -> Path:  # fmt: skip
        generator, root, k = np.random.default_rng(1), tmp_path / name, 0
        for part in parts:
            for label in range(classes):
                folder = root / part / f"class {label}"
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = generator.integers(0, 100, (*size(k), 3), dtype=np.uint8) + np.uint8(
                        150 * label // max(1, classes - 1)
                    )
                    Image.fromarray(pixels).save(folder / f"{number:04}.{form}")
                    k += 1
        return root

    return make


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real HTTP server; its address and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()
