"""What a user reads when something is wrong: one line that says what, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "object": "keys with values"}
BOUNDS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}
"""how a user would say what msgspec says of types and limits"""


class ScalelabError(Exception):
    """The user can mend this: a wrong flag, file or combination. Nothing was started. Exit status 2."""

    exit_status = 2


class NotApplicable(ScalelabError):
    """A strategy can't carry out this spec, though another could: no fault of either."""


class RunError(ScalelabError):
    """A run that had started went wrong: a rank died, the loss became NaN, the disk filled. Exit status 1."""

    exit_status = 1


def nearest(name: str, choices: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest of ``choices``, or an empty string when none is close."""
    match = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ""


def unknown(kind: str, name: str, choices: Iterable[str], more: str = "") -> ScalelabError:
    """The error for a name that a registry does not hold; lists every valid one."""
    valid = list(choices)
    return ScalelabError(f"unknown {kind} '{name}'{nearest(name, valid)}; valid: {', '.join(valid)}{more}")


def in_words(validation: str) -> str:
    """What msgspec says of a wrong value, as a user would: "Expected `int` >= 1" is "expected at least 1"."""
    found = re.match(r"Expected `(\w+)(?: \| null)?`(?: (>=|<=|>|<) (\S+))?", validation)
    if found is None or found[1] not in KINDS:
        return validation[0].lower() + validation[1:]
    if found[2] is None:
        return f"expected {KINDS[found[1]]}"
    return f"expected {BOUNDS[found[2]]} {float(found[3]):.10g}"
