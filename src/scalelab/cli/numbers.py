"""Numbers that flags are given as words, where no spec checks them."""

from __future__ import annotations

import math

from scalelab.errors import ScalelabError

MOST = 10**18 - 1
"""the largest whole number of 18 digits: every JSON reader takes it"""


def whole(flag: str, given: object, least: int = 1, most: int = MOST) -> int:
    """The whole number that a flag was given. Raises ScalelabError for anything else, below ``least`` or above ``most``."""
    text = str(given)
    plain = text.isascii() and text.isdecimal()
    if plain and len(text) <= len(str(most)) and least <= int(text) <= most:  # by length first: int() refuses thousands of digits
        return int(text)
    shown = text[:40] if plain else repr(text[:40])
    above = f", at most {most:,}" if plain and (len(text) > len(str(most)) or int(text) > most) else ""
    raise ScalelabError(f"{flag} {shown}: expected a whole number, at least {least}{above}")


def positive(flag: str, text: str, what: str = "a number") -> float:
    """The number above 0 that a flag was given, such as ``what`` = "seconds". Raises ScalelabError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ScalelabError(f"{flag} {text[:40]!r}: expected {what} above 0")
    return value
