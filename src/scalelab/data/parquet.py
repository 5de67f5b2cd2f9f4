"""Images in Parquet as the hub lays them out: a column of {bytes, path}, or of bytes, and a column of labels."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scalelab import userfile
from scalelab.data.dataset import Arrays, Progress
from scalelab.data.sources import Rows, Streamed, size_of
from scalelab.errors import ScalelabError


@dataclass(frozen=True)
class Layout:
    """Names that the columns may have; the first that is there is taken."""

    images: tuple[str, ...] = ("img", "image")
    labels: tuple[str, ...] = ("label",)

    def __str__(self) -> str:
        image, *others = map(repr, self.images)
        either = f" (or {', '.join(others)})" if others else ""
        return f"columns {image}{either} of {{bytes, path}} and {' or '.join(map(repr, self.labels))}"


HUB = Layout()


def files(folder: Path, *parts: str) -> list[Path]:
    """PART*.parquet in ``folder``, sorted, of the first of ``parts`` that has some. Raises ScalelabError where there is none."""
    for part in parts:
        if found := sorted(folder.glob(f"{part}*.parquet")):
            return found
    raise ScalelabError(f"data folder {str(folder)!r} holds Parquet files, but no {' or '.join(f'{p}*.parquet' for p in parts)}")


def read(parts: dict[str, list[Path]], num_classes: int, layout: Layout, progress: Progress) -> Arrays:
    """The arrays of the files of each part, decoded to RGB on all cores: ``PART_images`` and ``PART_labels``.

    Raises ScalelabError: not Parquet, other columns, no rows, a label outside the classes, an image that does not
    decode or has another size than the first (each named by its row).
    """
    arrays: Arrays = {}
    size: tuple[int, int] | None = None
    for part, paths in parts.items():
        progress(f"decoding the {part} images of {paths[0].parent}")
        columns = tuple((str(path), image_column(path, layout)) for path in paths)
        labels = np.concatenate([numbers(path, label_column(path, layout), num_classes) for path in paths])
        rows = Rows(functools.partial(tuple, columns), len(labels))
        size = size or size_of(*rows.frames(0)[0], rows.remedy)
        arrays[f"{part}_images"] = Streamed(rows, (len(labels), *size, 3), squash=False).all()
        arrays[f"{part}_labels"] = labels
    return arrays


def schema(path: Path, layout: Layout) -> tuple[Any, str, str]:
    """(pyarrow's schema, name of the image column, name of the label column) of a file. Raises ScalelabError."""
    import pyarrow as pa
    from pyarrow import parquet

    found = _told(path, lambda: parquet.read_schema(path))
    image, label = (next((name for name in names if name in found.names), None) for names in (layout.images, layout.labels))
    if image is None or label is None:
        raise ScalelabError(f"{path}: has the columns {', '.join(found.names) or '(none)'}; expected {layout}")
    kind = found.field(image).type
    plain = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if not plain and (not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0):
        raise ScalelabError(f"{path}: the column '{image}' is {kind}; expected {layout}")
    return found, image, label


def image_column(path: Path, layout: Layout) -> Any:
    """The encoded images of a file, pyarrow's ChunkedArray of binary. Raises ScalelabError."""
    from pyarrow import parquet

    _, image, _ = schema(path, layout)
    return as_bytes(_told(path, lambda: parquet.read_table(path, columns=[image]))[image])


def as_bytes(column: Any) -> Any:
    """A column of {bytes, path} as that of the bytes; null where either is."""
    import pyarrow as pa
    from pyarrow import compute

    return compute.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def label_column(path: Path, layout: Layout) -> Any:
    """The labels of a file, pyarrow's ChunkedArray. Raises ScalelabError: no rows, a row without."""
    from pyarrow import parquet

    _, _, label = schema(path, layout)
    column = _told(path, lambda: parquet.read_table(path, columns=[label]))[label]
    if len(column) == 0:
        raise ScalelabError(f"{path}: has no rows")
    if column.null_count:
        raise ScalelabError(f"{path}: {column.null_count} rows have no label")
    return column


def numbers(path: Path, column: Any, num_classes: int | None) -> np.ndarray:
    """Labels as int64 [N], from 0 to ``num_classes`` - 1 where that is known. Raises ScalelabError naming the row."""
    import pyarrow as pa

    if not pa.types.is_integer(column.type):
        raise ScalelabError(f"{path}: the column 'label' is {column.type}; expected whole numbers")
    found: np.ndarray = column.to_numpy().astype(np.int64)
    wrong = np.flatnonzero((found < 0) | (found >= (found.max() + 1 if num_classes is None else num_classes)))
    if len(wrong):
        known = "numbered from 0" if num_classes is None else f"0 to {num_classes - 1}"
        raise ScalelabError(f"{path}: the label of row {wrong[0]} is {found[wrong[0]]}; the classes are {known}")
    return found


def class_names(path: Path, layout: Layout) -> list[str] | None:
    """The names that the hub's metadata give the numbers of the labels; None where there are none."""
    found, _, label = schema(path, layout)
    try:
        names = json.loads(found.metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (TypeError, KeyError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, Sequence) and not isinstance(names, str) else None


def _told(path: Path, read: Any) -> Any:
    import pyarrow as pa

    try:
        return read()
    except (pa.ArrowException, OSError) as error:
        what = userfile.one_line(error)
        raise ScalelabError(f"{path}: cannot be read as Parquet, it is truncated or something else: {what}") from None
