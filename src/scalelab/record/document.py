"""Reading back the JSON files that scalelab writes, and one way to say that such a file is damaged."""

from __future__ import annotations

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
