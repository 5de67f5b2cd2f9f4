"""Reading back the JSON files that scalelab writes, and one way to say that such a file is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from scalelab.errors import ScalelabError

T = TypeVar("T")
DAMAGED = (msgspec.DecodeError, UnicodeDecodeError)
"""what decoding raises: no JSON, not of the type that was asked for (msgspec); a text in it that is not UTF-8"""


def read(path: Path, kind: type[T], called: str, advice: str = "") -> T:
    """The document in ``path``. ``called``: what it should be, such as "a record"; ``advice``: what to do where it is not.

    Raises FileNotFoundError where there is none, ScalelabError where it can't be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ScalelabError(f"{path}: cannot be read: {error.strerror}") from None
    except DAMAGED as error:
        raise ScalelabError(f"{path}: cannot be read as {called}: {error}{f'; {advice}' if advice else ''}") from None


def lines(path: Path, kind: type[T], called: str, start: int = 0) -> Iterator[T]:
    """The lines of a file of JSON lines, from line ``start`` (counted from 0) on; a last one that is still being written is left out.

    ``called``: what a line should be, such as "a step". Raises FileNotFoundError where there is no file, ScalelabError where it can't be
    read, naming the line.
    """
    try:
        body = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ScalelabError(f"{path}: cannot be read: {error.strerror}") from None
    decoder = msgspec.json.Decoder(kind)
    for number, line in enumerate(body[start:], start + 1):
        try:
            found = decoder.decode(line)
        except DAMAGED as error:
            raise ScalelabError(f"{path}: line {number} cannot be read as {called}: {error}") from None
        yield found
