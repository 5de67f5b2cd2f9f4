"""What a program says of itself: a number in its output, or in a JSON file that it writes. Imports little: the runner of tasks uses it."""

from __future__ import annotations

import json
import math
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalelab.errors import ScalelabError
from scalelab.sweep.template import NAME

OUTPUT = "-"
"""instead of a file: the last line of the output that is a JSON object"""
MOST_FILE = 64 << 20
"""bytes of a JSON file at most"""


@dataclass(frozen=True)
class Metric:
    """Caught by ``pattern`` (its first group, the last time it matches), or read at ``path`` of the JSON in ``file``."""

    name: str
    pattern: str | None = None
    file: str | None = None
    path: str | None = None


Seen = dict[str, tuple[int, int, int] | None]
"""what metric files were like before a task began: their inode, size and time"""


def from_pattern(text: str) -> Metric:
    """``accuracy=accuracy (\\S+)``. Raises ScalelabError."""
    name, equals, pattern = text.partition("=")
    if not equals or not re.fullmatch(NAME, name) or not pattern:
        raise ScalelabError(f"--metric {text!r}: must be NAME=REGEX, such as accuracy='accuracy (\\S+)'")
    try:
        re.compile(pattern.encode())
    except re.error as error:
        raise ScalelabError(f"--metric {text!r}: is no regular expression: {error}") from None
    return Metric(name, pattern=pattern)


def from_json(text: str) -> Metric:
    """``[NAME=]FILE:path.to.key``; FILE - is the output's last JSON line. Raises ScalelabError."""
    name, equals, rest = text.partition("=")
    if not equals or not re.fullmatch(NAME, name):
        name, rest = "", text
    file, colon, path = rest.rpartition(":")
    if not colon or not file or not path:
        raise ScalelabError(f"--metric-json {text!r}: must be [NAME=]FILE:path.to.key, such as accuracy=-:epochs.-1.accuracy")
    return Metric(name or path.rpartition(".")[2], file=file, path=path)


def look(metrics: Sequence[Metric], folder: Path) -> Seen:
    """What their files are like now: a number that was there before is not this task's."""
    return {metric.file: _state(folder / metric.file) for metric in metrics if metric.file not in (None, OUTPUT)}


def catch(
    metrics: Sequence[Metric], output: Path, start: int, folder: Path, before: Seen
) -> tuple[dict[str, float | None], str | None]:
    """Each metric's value, None where there is none, and what is wrong with the first such.

    ``start``: where in ``output`` this attempt begins; ``folder``: what a relative file is relative to.
    """
    values: dict[str, float | None] = {}
    fault = None
    for metric in metrics:
        try:
            values[metric.name] = _matched(metric, output, start) if metric.pattern is not None else _read(
                metric, output, start, folder, before
            )  # fmt: skip
        except (ValueError, OSError) as error:
            values[metric.name] = None
            fault = fault or f"{metric.name}: {error}"
    return values, fault


def _matched(metric: Metric, output: Path, start: int) -> float:
    assert metric.pattern is not None, "the caller has looked"
    found = None
    with output.open("rb") as file:
        if file.seek(0, 2) > start:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
                for match in re.compile(metric.pattern.encode()).finditer(body, start):
                    found = match[1] if match.re.groups else match[0]
    if found is None:
        raise ValueError(f"nothing in the output matches {metric.pattern!r}")
    return _number(found.decode(errors="replace"))


def _read(metric: Metric, output: Path, start: int, folder: Path, before: Seen) -> float:
    assert metric.file is not None, "the caller has looked"
    assert metric.path is not None, "a file comes with a path"
    document = _last_object(output, start) if metric.file == OUTPUT else _document(metric.file, folder / metric.file, before)
    value = document
    for key in metric.path.split("."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"there is no {metric.path!r} in {'the output' if metric.file == OUTPUT else metric.file}") from None
    return _number(value)


def _document(named: str, path: Path, before: Seen) -> Any:
    state = _state(path)
    if state is None:
        raise ValueError(f"{named} was not written")
    if state == before.get(named):
        raise ValueError(f"{named} is as it was before: this task did not write it")
    if state[1] > MOST_FILE:
        raise ValueError(f"{named} is larger than {MOST_FILE >> 20} MiB")
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{named} cannot be read as JSON: {error}") from None


def _last_object(output: Path, start: int) -> Any:
    with output.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(start, end - MOST_FILE))
        lines = file.read().split(b"\n")
    for line in reversed(lines):
        if line.lstrip().startswith(b"{"):
            try:
                return json.loads(line)
            except (ValueError, RecursionError):
                continue
    raise ValueError("no line of the output is a JSON object")


def _number(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{str(value)[:40]!r} is no number") from None
    except OverflowError:  # a whole number of JSON may have any length
        raise ValueError("it is a number beyond all measure") from None
    if not math.isfinite(found):
        raise ValueError(f"it is {found}")
    return found


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns
