"""``{name}`` in a command: found, and filled in. ``{{`` and ``}}`` stand for braces."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scalelab.errors import ScalelabError

NAME = r"[^\W\d][\w.-]*"
"""what a parameter may be called"""
PARTS = re.compile(rf"\{{\{{|\}}\}}|\{{({NAME})\}}|[{{}}]")


def names(text: str) -> list[str]:
    """The placeholders in ``text``, in order. Raises ScalelabError for a brace that belongs to none."""
    found = []
    for part in PARTS.finditer(text):
        if part[1] is not None:
            found.append(part[1])
        elif part[0] in "{}":
            raise ScalelabError(
                f"{text!r}: a brace that holds no parameter's name; write {part[0] * 2!r} for the character itself"
            )
    return found


def fill(text: str, values: Mapping[str, str]) -> str:
    """``text`` with each placeholder's value, as it is. Raises KeyError for one without."""
    return PARTS.sub(lambda part: values[part[1]] if part[1] is not None else part[0][0], text)
