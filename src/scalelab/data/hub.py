"""``parquet:PATH``: train*.parquet and test*.parquet (or validation*) in the layout of the Hugging Face hub."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from scalelab.data import cache
from scalelab.data.assemble import STREAM, Found, Labelled, assemble, refuse_one_class
from scalelab.data.dataset import Dataset, Progress
from scalelab.data.locking import exclusive
from scalelab.data.parquet import Layout, as_bytes, class_names, files, image_column, label_column, numbers, schema
from scalelab.data.sources import Rows, size_of
from scalelab.errors import ScalelabError
from scalelab.spec import Spec

LAYOUT = Layout(
    images=("img", "image", "images", "picture", "jpg", "jpeg", "png", "webp"),
    labels=("label", "labels", "fine_label", "class", "target", "cls"),
)
BATCH = 256
"""rows copied at a time"""


def load(spec: Spec, progress: Progress) -> Dataset:
    """The images in the folder that ``spec.data`` names, or in its folder ``data``. RGB, uint8; labels are numbers or text.

    Raises ScalelabError in one line: no folder, a part missing, other columns, a damaged image, one class, images of different sizes
    without ``spec.resize``.
    """
    path = spec.data.partition(":")[2]
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        raise ScalelabError(
            f"data '{spec.data}': there is no folder {str(folder)!r}; it should hold train*.parquet and test*.parquet"
        )
    if not any(folder.glob("*.parquet")) and (folder / "data").is_dir():
        folder = folder / "data"
    if not any(folder.glob("*.parquet")):
        raise ScalelabError(f"data folder {str(folder)!r} holds no train*.parquet and test*.parquet")
    parts = {"train": files(folder, "train"), "test": files(folder, "test", "val")}
    names, labels = _labels(parts)
    refuse_one_class(spec.data, len(names))
    key = f"hub-{version('pillow')}-{_fingerprint([file for found in parts.values() for file in found])}"
    streams = _streams(parts["train"][0], labels, spec)
    train, test = (
        Labelled(_rows(parts[part], len(labels[part]), f"{part}-{key}", streams, progress), labels[part])
        for part in ("train", "test")
    )
    return assemble(Found(spec.data, train, test, tuple(names), key, "flip"), spec, progress)


def _labels(parts: dict[str, list[Path]]) -> tuple[list[str], dict[str, np.ndarray]]:
    """(names of the classes, labels int64 [N] of each part). Raises ScalelabError."""
    import pyarrow as pa

    columns = {part: [(path, label_column(path, LAYOUT)) for path in found] for part, found in parts.items()}
    if any(pa.types.is_integer(column.type) for found in columns.values() for _, column in found):
        names = class_names(parts["train"][0], LAYOUT)
        count = None if names is None else len(names)
        train = np.concatenate([numbers(path, column, count) for path, column in columns["train"]])
        if count is None and train.max() >= len(train):  # an identifier is no class, and there may be millions
            raise ScalelabError(
                f"{columns['train'][0][0].parent}: a label is {train.max()}, but there are {len(train)} training rows; "
                "number the classes from 0"
            )
        count = count or int(train.max()) + 1
        test = np.concatenate([numbers(path, column, count) for path, column in columns["test"]])
        return names or [str(k) for k in range(count)], {"train": train, "test": test}
    texts = {part: [(path, [str(v) for v in column.to_pylist()]) for path, column in found] for part, found in columns.items()}
    names = sorted({text for _, found in texts["train"] for text in found})
    place = {name: k for k, name in enumerate(names)}
    for path, found in texts["test"]:
        if strange := next((text for text in found if text not in place), None):
            raise ScalelabError(f"{path}: the label '{strange}' is in no training file: nothing can be learnt of it")
    return names, {part: np.array([place[t] for _, values in found for t in values]) for part, found in texts.items()}


def _fingerprint(paths: Sequence[Path]) -> str:
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()[:32]


def _streams(path: Path, labels: dict[str, np.ndarray], spec: Spec) -> bool:
    """Whether the images will be streamed, as far as the first one tells their size. Raises ScalelabError where it is no image."""
    first = next(iter(_batches(path, 1)))[0].as_py()
    height, width = size_of(f"{path}: the image of row 0", first, Rows.remedy)
    pixels = height * width if spec.resize is None else min(height * width, spec.resize**2)
    limits = {"train": spec.train_limit, "test": spec.test_limit}
    counts = [min(len(labels[part]), limit or len(labels[part])) for part, limit in limits.items()]
    return STREAM[spec.stream](3 * pixels * sum(counts))


def _rows(paths: list[Path], count: int, key: str, streams: bool, progress: Progress) -> Rows:
    """The rows of ``paths``, read when they are first asked for.

    Where images will be streamed, from an uncompressed copy in the cache that is mapped: a row of Parquet can't be read alone.
    """

    @functools.cache
    def columns() -> tuple[tuple[str, Any], ...]:
        if streams:
            return tuple((str(path), _mapped(path, f"{k}-{key}", progress)) for k, path in enumerate(paths))
        return tuple((str(path), image_column(path, LAYOUT)) for path in paths)

    return Rows(columns, count)


def _mapped(path: Path, key: str, progress: Progress) -> Any:
    """The encoded images of ``path`` as a column mapped from the cache (Arrow's file format). Raises ScalelabError."""
    copy = cache.folder() / "rows" / f"{key}.arrow"  # a folder of its own: who asks may hold the cache's
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(copy.parent):
            if (column := _opened(copy)) is None:
                progress(f"copying {path} to where single images can be read from")
                cache.write(copy, lambda file: _copy(path, file))
                column = _opened(copy)
    except OSError as error:
        raise ScalelabError(
            f"{path}: streaming needs a copy in {copy.parent}, which cannot be made ({error.strerror or error}); "
            f"SCALELAB_CACHE names another folder"
        ) from None
    assert column is not None, "it was just written"
    return column


def _opened(copy: Path) -> Any:
    """The column in ``copy``; None where there is no such file, or it is damaged."""
    import pyarrow as pa
    from pyarrow import ipc

    try:
        return ipc.open_file(pa.memory_map(str(copy))).read_all()["image"]
    except (FileNotFoundError, pa.ArrowInvalid):
        return None


def _copy(path: Path, file: Any) -> None:
    import pyarrow as pa
    from pyarrow import ipc

    kind = pa.schema([("image", pa.large_binary())])
    with ipc.new_file(file, kind) as writer:
        for images in _batches(path, BATCH):
            writer.write_batch(pa.record_batch([images.cast(pa.large_binary())], schema=kind))


def _batches(path: Path, rows: int) -> Any:
    """The encoded images of a file, pyarrow's arrays of ``rows`` binaries. Raises ScalelabError."""
    from pyarrow import parquet

    _, image, _ = schema(path, LAYOUT)
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=[image]):
            yield as_bytes(batch.column(0))
