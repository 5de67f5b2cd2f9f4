"""Images in Parquet as the hub lays them out: a column ``img`` (or ``image``) of {bytes, path}, and ``label``."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from scalelab import userfile
from scalelab.data.dataset import Arrays, Progress
from scalelab.errors import ScalelabError

IMAGE_COLUMNS = ("img", "image")
LABEL = "label"
LAYOUT = "columns 'img' (or 'image') of {bytes, path} and 'label'"


def files(folder: Path, part: str) -> list[Path]:
    """``part``*.parquet in ``folder``, sorted. Raises ScalelabError where there is none."""
    found = sorted(folder.glob(f"{part}*.parquet"))
    if not found:
        raise ScalelabError(f"data folder {str(folder)!r} holds Parquet files, but no {part}*.parquet")
    return found


def read(parts: dict[str, list[Path]], num_classes: int, progress: Progress) -> Arrays:
    """The arrays of the files of each part, decoded to RGB on all cores: ``PART_images`` and ``PART_labels``.

    Raises ScalelabError: not Parquet, other columns, no rows, a label outside the classes, an image that does not
    decode or has another size than the first (each named by its row).
    """
    arrays: Arrays = {}
    size: tuple[int, int] | None = None
    for part, paths in parts.items():
        progress(f"decoding the {part} images of {paths[0].parent}")
        columns = [_columns(path, num_classes) for path in paths]
        images = []
        for path, (encoded, _) in zip(paths, columns, strict=True):
            size = size or _decode(encoded[0], path, 0).shape[:2]
            images.append(_decode_all(encoded, path, size))
        arrays[f"{part}_images"] = np.concatenate(images) if len(images) > 1 else images[0]
        arrays[f"{part}_labels"] = np.concatenate([labels for _, labels in columns])
    return arrays


def _columns(path: Path, num_classes: int) -> tuple[list[bytes | None], np.ndarray]:
    """The encoded images and the labels, int64 [N], of one file. Raises ScalelabError."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
        image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
        if image is None or LABEL not in schema.names:
            raise ScalelabError(f"{path}: has the columns {', '.join(schema.names) or '(none)'}; expected {LAYOUT}")
        kind = schema.field(image).type
        if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
            raise ScalelabError(f"{path}: the column '{image}' is {kind}; expected {LAYOUT}")
        if not pa.types.is_integer(schema.field(LABEL).type):
            raise ScalelabError(f"{path}: the column '{LABEL}' is {schema.field(LABEL).type}; expected whole numbers")
        table = parquet.read_table(path, columns=[image, LABEL])
    except (pa.ArrowException, OSError) as error:
        what = userfile.one_line(error)
        raise ScalelabError(f"{path}: cannot be read as Parquet, it is truncated or something else: {what}") from None
    if table.num_rows == 0:
        raise ScalelabError(f"{path}: has no rows")
    labels = table[LABEL]
    if labels.null_count:
        raise ScalelabError(f"{path}: {labels.null_count} rows have no label")
    numbers = labels.to_numpy().astype(np.int64)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= num_classes))
    if len(wrong):
        raise ScalelabError(f"{path}: the label of row {wrong[0]} is {numbers[wrong[0]]}; the classes are 0 to {num_classes - 1}")
    return [row["bytes"] if row else None for row in table[image].to_pylist()], numbers


def _decode_all(encoded: list[bytes | None], path: Path, size: tuple[int, int]) -> np.ndarray:
    """uint8 [N, H, W, 3] of all images of one file. Raises ScalelabError naming the first bad row."""
    images = np.empty((len(encoded), *size, 3), dtype=np.uint8)

    def fill(start: int) -> None:
        for row in range(start, min(start + 512, len(encoded))):
            image = _decode(encoded[row], path, row)
            if image.shape[:2] != size:
                found, expected = (f"{shape[1]}x{shape[0]}" for shape in (image.shape, size))
                unequal = f"the image of row {row} is {found}, the first one {expected} (width x height)"
                raise ScalelabError(f"{path}: {unequal}; all must be alike")
            images[row] = image

    # Pillow lets go of the interpreter's lock while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(0, len(encoded), 512)):
            pass
    return images


def _decode(encoded: bytes | None, path: Path, row: int) -> np.ndarray:
    """One image as uint8 [H, W, 3]. Raises ScalelabError naming the row."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded or b"")) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise many kinds for damaged bytes
        what = "no bytes" if not encoded else userfile.one_line(error).split(": ", 1)[-1].split(" <_io")[0]
        raise ScalelabError(f"{path}: the image of row {row} does not decode ({what}); write the file again without it") from None
