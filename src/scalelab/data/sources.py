"""Encoded images, one sample after the other: files, or rows of Parquet. Decoded to RGB by Pillow when they are asked for."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from scalelab import userfile
from scalelab.errors import ScalelabError

Encoded = bytes | str | None
"""the bytes of an image file, or its path; None where a row has none"""
CHUNK = 64
"""samples a thread takes at a time"""
SIXTEEN = 2**16 - 1
"""white of 16 bits; Pillow's mode I holds them in 32 (16-bit PGM)"""


class Source(Protocol):
    """Samples by number; ``remedy`` ends the message about one that does not decode."""

    @property
    def remedy(self) -> str: ...

    def __len__(self) -> int: ...

    def frames(self, index: int) -> Sequence[tuple[str, Encoded]]:
        """What messages call it, and the image: one for an image, several for a clip."""
        ...

    def first(self, count: int | None) -> Source:
        """The first ``count`` samples, or all."""
        ...


@dataclass(frozen=True)
class Files:
    """``samples[i]`` are the paths of sample i: one for an image, several for a clip."""

    samples: list[tuple[str, ...]]
    remedy: str = "replace or remove it"

    def __len__(self) -> int:
        return len(self.samples)

    def frames(self, index: int) -> Sequence[tuple[str, Encoded]]:
        return [(path, path) for path in self.samples[index]]

    def first(self, count: int | None) -> Source:
        return replace(self, samples=self.samples[:count])


@dataclass(frozen=True)
class Rows:
    """Rows of Parquet files. ``columns`` gives (path, column of encoded images, pyarrow's binary) of each, in order, when first asked."""

    columns: Callable[[], tuple[tuple[str, Any], ...]]
    count: int
    remedy: str = "write the file again without it"

    def __len__(self) -> int:
        return self.count

    def frames(self, index: int) -> Sequence[tuple[str, Encoded]]:
        row = index
        for path, column in self.columns():
            if row < len(column):
                return [(f"{path}: the image of row {row}", column[row].as_py())]
            row -= len(column)
        raise IndexError(index)

    def first(self, count: int | None) -> Source:
        return self if count is None else replace(self, count=min(count, self.count))


@dataclass(frozen=True)
class Streamed:
    """Images of a split that are decoded when they are asked for. ``shape`` is (N, H, W, 3), of clips (N, T, H, W, 3).

    ``squash``: images of another size are resized to H × W as they are decoded; else they are refused.
    """

    source: Source
    shape: tuple[int, ...]
    squash: bool

    def __getitem__(self, which: slice) -> Streamed:
        assert which == slice(which.stop), "only the first samples"
        source = self.source.first(which.stop)
        return Streamed(source, (len(source), *self.shape[1:]), self.squash)

    def read(self, index: int, out: np.ndarray) -> None:
        """Decode sample ``index`` into uint8 ``out``, of ``shape[1:]``. Raises ScalelabError naming the image."""
        frames = self.source.frames(index)
        for target, (what, encoded) in zip(out if len(self.shape) == 5 else [out], frames, strict=True):
            decode(what, encoded, self.source.remedy, target, self.squash)

    def all(self) -> np.ndarray:
        """uint8 [N, ...], decoded on all cores. Raises ScalelabError naming the first bad image."""
        images = np.empty(self.shape, dtype=np.uint8)

        def fill(part: range) -> None:
            for index in part:
                self.read(index, images[index])

        over_all(fill, len(images))
        return images


def over_all(work: Callable[[range], None], count: int) -> None:
    """``work`` on ranges that cover 0..count-1, on all cores: Pillow lets go of the interpreter's lock while it decodes."""
    parts = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, parts):
            pass


def sizes(source: Source) -> np.ndarray:
    """(height, width) of each sample's images, int32 [N, 2], from their headers alone; (-1, -1) where a clip's frames differ.

    Raises ScalelabError naming the first that is no image.
    """
    found = np.empty((len(source), 2), dtype=np.int32)

    def look(part: range) -> None:
        for index in part:
            each = {size_of(what, encoded, source.remedy) for what, encoded in source.frames(index)}
            found[index] = each.pop() if len(each) == 1 else (-1, -1)

    over_all(look, len(source))
    return found


def size_of(what: str, encoded: Encoded, remedy: str) -> tuple[int, int]:
    """(height, width) of an image by its header. Raises ScalelabError."""
    with _blame(what, encoded, remedy), _opened(encoded) as image:
        _refuse_floats(image)
        return image.height, image.width


def decode(what: str, encoded: Encoded, remedy: str, out: np.ndarray, squash: bool) -> None:
    """An image as RGB into uint8 ``out`` [H, W, 3]. Raises ScalelabError naming ``what``: damaged, of floats, or of another size.

    With ``squash`` it is resized to H × W (antialiased bilinear); a JPEG far larger is decoded at a fraction of its size first.
    """
    height, width = out.shape[:2]
    with _blame(what, encoded, remedy), _opened(encoded) as image:
        if squash:
            image.draft("RGB", (2 * width, 2 * height))  # never less than twice what is wanted
        rgb = _eight_bits(image).convert("RGB")
        if rgb.size != (width, height) and squash:
            rgb = rgb.resize((width, height), 2)  # Pillow's BILINEAR: antialiased when it reduces
        if rgb.size == (width, height):
            out[:] = np.asarray(rgb)
            return
        found = rgb.size
    raise ScalelabError(unequal(what, (found[1], found[0]), (height, width)))


def _eight_bits(image: Any) -> Any:
    """``image``, or of a grey one of 16 bits the upper eight of each pixel: Pillow's own conversion cuts all above 255 off.

    Raises ValueError: values that are no 16 bits, or floats.
    """
    from PIL import Image

    _refuse_floats(image)
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > SIXTEEN:
        raise ValueError(
            f"its values reach from {values.min()} to {values.max()}, outside of 16 bits, so what is white is not known"
        )
    return Image.fromarray((values >> 8).astype(np.uint8))


def _refuse_floats(image: Any) -> None:
    if image.mode == "F":
        raise ValueError("its pixels are floats, Pillow's mode F, so what is white is not known")


def unequal(what: str, found: tuple[int, int], expected: tuple[int, int]) -> str:
    """Says that an image's (height, width) is not the first one's; -1: a clip's frames differ among themselves."""
    first = f"{expected[1]}x{expected[0]} (width x height)"
    if found[0] < 0:
        return f"{what}: the frames of this clip differ in size; all must be alike"
    return f"{what} is {found[1]}x{found[0]}, the first one {first}; all must be alike"


def _opened(encoded: Encoded) -> Any:
    from PIL import Image

    return Image.open(encoded if isinstance(encoded, str) else io.BytesIO(encoded or b""))


class _blame:
    """Whatever Pillow raises for damaged bytes becomes one line; a class, as it stands around every image."""

    def __init__(self, what: str, encoded: Encoded, remedy: str) -> None:
        self.what, self.encoded, self.remedy = what, encoded, remedy

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception):
            raise ScalelabError(f"{self.what} does not decode ({_why(error, self.encoded)}); {self.remedy}") from None


def _why(error: Exception, encoded: Encoded) -> str:
    from PIL import UnidentifiedImageError

    if not encoded or (isinstance(encoded, str) and os.path.exists(encoded) and not os.path.getsize(encoded)):
        return "no bytes"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    said = error.strerror if isinstance(error, OSError) else None
    return said or userfile.one_line(error).split(": ", 1)[-1].split(" <_io")[0]


def interleaved(labels: Sequence[int]) -> Iterator[int]:
    """Positions of samples so that classes take turns in proportion: the first N then hold every class."""
    numbers = np.asarray(labels)
    place = np.empty(len(numbers))
    for k in np.unique(numbers):
        mine = np.flatnonzero(numbers == k)
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    yield from np.lexsort((numbers, place)).tolist()
