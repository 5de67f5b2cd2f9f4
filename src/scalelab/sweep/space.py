"""From flags to points: products of values, values taken together, draws from ranges, rows of a file. A value is text, as given."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalelab.errors import ScalelabError, unknown
from scalelab.sweep.template import NAME

MOST = 100_000
"""tasks of a sweep at most: beyond, a number was mistyped, or a file is too long for a folder of results"""
RANGE = re.compile(r"(?P<kind>[a-z]+):(?P<low>[-+.\deE]+):(?P<high>[-+.\deE]+)")


@dataclass(frozen=True)
class Axis:
    """Parameters whose values change together: one for a grid, several for a zip or a file."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Range:
    """A parameter that is drawn: log, uniform (between ``low`` and ``high``), or int (both ends included)."""

    name: str
    kind: str
    low: float
    high: float

    def draw(self, source: random.Random) -> str:
        """A value, of six digits."""
        return DRAWS[self.kind](self.low, self.high, source)


DRAWS: dict[str, Callable[[float, float, random.Random], str]] = {
    "log": lambda low, high, source: f"{math.exp(source.uniform(math.log(low), math.log(high))):.6g}",
    "uniform": lambda low, high, source: f"{source.uniform(low, high):.6g}",
    "int": lambda low, high, source: str(source.randint(int(low), int(high))),
}
"""the kinds of ranges"""

Point = dict[str, str]


def grid(text: str) -> Axis | Range:
    """``lr=0.1,0.01``, ``lr=log:1e-4:1e-1``, ``name="a,b",c`` (as in a CSV file), ``name=["a,b", "c"]`` (JSON). Raises ScalelabError."""
    name, values = _named("--grid", text)
    drawn = RANGE.fullmatch(values)
    if drawn is not None:
        return _range(f"--grid {text!r}", name, drawn["kind"], drawn["low"], drawn["high"])
    kind, colon, _ = values.partition(":")
    if colon and kind in DRAWS:  # such as log:1e-4,1e-1
        raise ScalelabError(
            f'--grid {text!r}: a range is {kind}:LOW:HIGH, two numbers; for values that begin so write {name}=["…"]'
        )
    return Axis((name,), tuple((value,) for value in _values("--grid", text, values)))


def zipped(texts: Sequence[str]) -> Axis:
    """Several ``a=1,2``: their first values together, then their second ones. Raises ScalelabError where one has more than another."""
    columns = {}
    for text in texts:
        name, values = _named("--zip", text)
        if name in columns:
            raise ScalelabError(f"--zip {text!r}: {name!r} is there twice")
        columns[name] = _values("--zip", text, values)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} has {count}" for name, count in lengths.items())
        raise ScalelabError(f"--zip: {counts}; parameters that change together need as many values")
    return Axis(tuple(columns), tuple(zip(*columns.values(), strict=True)))


def listed(path: Path) -> Axis:
    """The rows of a CSV file with a heading, or of a JSONL file of objects. Raises ScalelabError naming the line that is wrong."""
    kind = path.suffix.removeprefix(".")
    if kind not in READERS:
        raise unknown("kind of list", kind, READERS, " (what the file's name ends in)")
    try:
        body = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ScalelabError(f"--list {str(path)!r}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ScalelabError(f"--list {str(path)!r}: is not UTF-8 text (byte {error.start})") from None
    names, rows = READERS[kind](f"--list {str(path)!r}", body)
    if not rows:
        raise ScalelabError(f"--list {str(path)!r}: has no rows")
    for name in names:
        if not re.fullmatch(NAME, name):
            raise ScalelabError(f"--list {str(path)!r}: {name!r} can't be a parameter's name: letters, digits, '_', '.', '-'")
    if len(set(names)) < len(names):
        raise ScalelabError(f"--list {str(path)!r}: two columns have the same name")
    return Axis(tuple(names), tuple(rows))


Rows = tuple[list[str], list[tuple[str, ...]]]


class _Float(float):
    """A number of a JSON text that is remembered as it was written: 0.10 stays 0.10."""

    def __new__(cls, text: str) -> _Float:
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str


def _json(text: str) -> Any:
    return json.loads(text, parse_float=_Float)


def _text(value: Any) -> str:
    """A JSON value as an argument."""
    return value if isinstance(value, str) else value.text if isinstance(value, _Float) else json.dumps(value)


def _csv(where: str, body: str) -> Rows:
    lines = csv.reader(io.StringIO(body, newline=""))
    names = next(_well(where, lines), [])
    rows = []
    for row in _well(where, lines):
        if row and len(row) != len(names):
            raise ScalelabError(f"{where}: line {lines.line_num} has {len(row)} values, not {len(names)}")
        rows += [tuple(row)] if row else []
    return [name.strip() for name in names], rows


def _well(where: str, lines: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from lines
    except csv.Error as error:  # such as of a value longer than any argument can be
        raise ScalelabError(f"{where}: is no CSV: {error}") from None


def _jsonl(where: str, body: str) -> Rows:
    names: list[str] = []
    rows = []
    for number, line in enumerate(body.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = _json(line)
        except ValueError as error:
            raise ScalelabError(f"{where}: line {number} is no JSON: {error}") from None
        if not isinstance(value, dict):
            raise ScalelabError(f"{where}: line {number} is no object of names and values")
        names = names or list(value)
        if set(value) != set(names):
            raise ScalelabError(f"{where}: line {number} has {', '.join(value)}; the first has {', '.join(names)}")
        rows.append(tuple(_text(value[name]) for name in names))
    return names, rows


READERS: dict[str, Callable[[str, str], Rows]] = {"csv": _csv, "jsonl": _jsonl}


def points(axes: Sequence[Axis | Range], random_of: int | None, seed: int) -> list[Point]:
    """All combinations, the last parameter changing fastest; or ``random_of`` of them, drawn.

    Of values alone the draws are different combinations; a range gives a new value each time. Raises ScalelabError.
    """
    _once(axes)
    ranges = [axis for axis in axes if isinstance(axis, Range)]
    finite = [axis for axis in axes if isinstance(axis, Axis)]
    total = math.prod(len(axis.rows) for axis in finite)
    if random_of is None:
        if ranges:
            raise ScalelabError(f"--grid {ranges[0].name}={ranges[0].kind}:…: a range needs --random N, the number of draws")
        few(total)
        return [_point(finite, combination) for combination in itertools.product(*(axis.rows for axis in finite))]
    few(random_of)
    source = random.Random(seed)  # of a sweep, not of secrets
    if not ranges:
        if random_of > total:
            raise ScalelabError(f"--random {random_of}: is more than the {total} that there are; leave it out to have all")
        return [_point(finite, _at(finite, place)) for place in source.sample(range(total), random_of)]
    drawn = [
        _point(finite, _at(finite, source.randrange(total))) | {one.name: one.draw(source) for one in ranges}
        for _ in range(random_of)
    ]
    order = [name for axis in axes for name in _names(axis)]
    return [{name: point[name] for name in order} for point in drawn]


def _names(axis: Axis | Range) -> tuple[str, ...]:
    return (axis.name,) if isinstance(axis, Range) else axis.names


def _at(axes: Sequence[Axis], place: int) -> list[tuple[str, ...]]:
    """The combination at ``place`` of their product."""
    found = []
    for axis in reversed(axes):
        place, own = divmod(place, len(axis.rows))
        found.append(axis.rows[own])
    return found[::-1]


def _point(axes: Sequence[Axis], rows: Iterable[tuple[str, ...]]) -> Point:
    return {name: value for axis, row in zip(axes, rows, strict=True) for name, value in zip(axis.names, row, strict=True)}


def few(count: int) -> None:
    """Raises ScalelabError for more tasks than a folder of results should hold."""
    if count > MOST:
        raise ScalelabError(
            f"these are {count:,} tasks; a sweep may have {MOST:,}: try fewer values or repeats, or --random N of them"
        )


def _once(axes: Sequence[Axis | Range]) -> None:
    names = [name for axis in axes for name in _names(axis)]
    for name in names:
        if names.count(name) > 1:
            raise ScalelabError(f"parameter {name!r} is given more than once; put all its values into one flag")


def _named(flag: str, text: str) -> tuple[str, str]:
    name, equals, values = text.partition("=")
    if not equals or not re.fullmatch(NAME, name):
        raise ScalelabError(f"{flag} {text!r}: must be NAME=VALUE,VALUE…, such as lr=0.1,0.01")
    return name, values


def _values(flag: str, text: str, values: str) -> list[str]:
    if values.startswith("["):
        try:
            found = _json(values)
        except ValueError:
            found = None  # such as [0.1-0.2],[0.3-0.4]: values that begin so
        if isinstance(found, list):
            if not found:
                raise ScalelabError(f"{flag} {text!r}: has no values")
            return [_text(one) for one in found]
        if values.startswith("['"):
            raise ScalelabError(f'{flag} {text!r}: a list is JSON, with double quotes: ["a", "b"]')
    rows = list(csv.reader(io.StringIO(values, newline="")))
    if len(rows) > 1:
        raise ScalelabError(f'{flag} {text!r}: a value with a line break or a comma stands in quotes: "a,b",c')
    return rows[0] if rows else [""]


def _range(where: str, name: str, kind: str, low_text: str, high_text: str) -> Range:
    if kind not in DRAWS:
        raise unknown("range", kind, DRAWS, f' in {where}; for a value that looks like one write {name}=["…"]')
    try:
        low, high = float(low_text), float(high_text)
    except ValueError:
        raise ScalelabError(f"{where}: {low_text} to {high_text} are no two numbers") from None
    if kind == "int" and not (low.is_integer() and high.is_integer()):
        raise ScalelabError(f"{where}: the ends of int must be whole numbers")
    if not low < high or not math.isfinite(high - low) or (kind == "log" and low <= 0):
        raise ScalelabError(f"{where}: needs {'0 < ' if kind == 'log' else ''}low < high")
    return Range(name, kind, low, high)
