"""A table in a CSV file: read, recomputed, judged."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scalelab.errors import ScalelabError
from scalelab.record import text
from scalelab.record.schema import ModelFacts
from scalelab.studies.published.published import Assumed, Checked, Printed, TableCheck, assumptions, recompute
from scalelab.studies.published.verdicts import judge, others_of

WHOLE, TIMES, OPTIONAL = ("gpus", "batch_per_gpu"), ("compute_s", "comm_s"), "bandwidth_gbs"
LARGEST = 2**53
"""whole numbers below are exact in whatever reads them"""
FORM = f"columns {', '.join((*WHOLE, *TIMES))}, and if it has one {OPTIONAL}"


def read(path: Path) -> list[Printed]:
    """The rows of a CSV file with these columns, in any order; others are left out. Raises ScalelabError with the line's number."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except IsADirectoryError:
        raise ScalelabError(f"{path}: is a folder, not a CSV file; name the file in it, with {FORM}") from None
    except FileNotFoundError:
        raise ScalelabError(f"{path}: no such file; it is to be a CSV file with {FORM}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScalelabError(f"{path}: cannot be read as text: {error}; save it as CSV in UTF-8") from None
    try:
        lines = [
            (number, cells) for number, cells in enumerate(csv.reader(content.splitlines()), 1) if any(map(str.strip, cells))
        ]
    except csv.Error as error:
        raise ScalelabError(f"{path}: cannot be read as CSV: {error}; see that its quotes are closed") from None
    if not lines:
        raise ScalelabError(f"{path}: is empty; it is to have {FORM}")
    names = _names(path, lines[0][1], lines[0][0])
    if len(lines) == 1:
        raise ScalelabError(f"{path}: has column names and no row")
    return [_row(path, number, names, cells) for number, cells in lines[1:]]


def _names(path: Path, cells: Sequence[str], line: int) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    for delimiter, what in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(names) == 1 and delimiter in names[0]:
            raise ScalelabError(f"{path}, line {line}: columns are separated by {what}; separate them by commas")
    missing = [name for name in (*WHOLE, *TIMES) if name not in names]
    if missing:
        raise ScalelabError(f"{path}, line {line}: there is no column {' and no '.join(missing)}; a table has {FORM}")
    twice = [name for name in names if name in (*WHOLE, *TIMES, OPTIONAL) and names.count(name) > 1]
    if twice:
        raise ScalelabError(f"{path}, line {line}: column {twice[0]} is there twice")
    return names


def _row(path: Path, line: int, names: Sequence[str], cells: Sequence[str]) -> Printed:
    if len(cells) != len(names):
        raise ScalelabError(f"{path}, line {line}: {len(cells)} cells under {len(names)} column names")
    values = dict(zip(names, (cell.strip() for cell in cells), strict=True))

    def number(name: str) -> float:
        try:
            return float(values[name])
        except ValueError:
            raise ScalelabError(f"{path}, line {line}: {name} {values[name]!r} is not a number") from None

    def whole(name: str) -> int:
        value = number(name)
        if not math.isfinite(value) or value < 1 or value != int(value):
            raise ScalelabError(f"{path}, line {line}: {name} {values[name]!r} is not a whole number from 1 on")
        if value >= LARGEST:
            raise ScalelabError(
                f"{path}, line {line}: {name} {values[name]!r} is 2**53 or more; no GPUs and no batch are so many"
            )
        return int(value)

    return Printed(
        line=line, gpus=whole("gpus"), batch_per_gpu=whole("batch_per_gpu"), compute_s=number("compute_s"), comm_s=number("comm_s"),
        bandwidth_gbs=number(OPTIONAL) if values.get(OPTIONAL) else None,
    )  # fmt: skip


def check(file: str, rows: Sequence[Printed], model: ModelFacts, assumed: Assumed) -> TableCheck:
    """Recompute every row and judge its cells."""
    found = [recompute(row, model, assumed) for row in rows]
    others = others_of(found, assumed)
    judged = [msgspec.structs.replace(row, verdicts=judge(row, others, assumed)) for row in found]
    verdicts = [verdict for row in judged for verdict in row.verdicts]
    impossible, doubtful = (sum(verdict.level == level for verdict in verdicts) for level in ("impossible", "doubtful"))
    bandwidths = any(row.bandwidth_gbs is not None for row in rows)
    return TableCheck(
        file=file, model=model, assumed=assumed, assumptions=assumptions(model, assumed, bandwidths), rows=judged,
        impossible=impossible, doubtful=doubtful, answer=_answer(judged, impossible, doubtful),
    )  # fmt: skip


def _answer(rows: Sequence[Checked], impossible: int, doubtful: int) -> str:
    """The whole table in a sentence."""
    if not impossible and not doubtful:
        return f"nothing in {text.counted(len(rows), 'row')} contradicts itself"
    said = [f"{text.counted(impossible, 'cell')} can't be right"] * bool(impossible)
    said += [f"{text.counted(doubtful, 'cell')} {'is' if doubtful == 1 else 'are'} doubtful"] * bool(doubtful)
    wrong = sorted(
        row.ratio for row in rows if row.ratio and any(v.cell == OPTIONAL and v.level == "impossible" for v in row.verdicts)
    )
    if wrong:
        low, high = text.number(wrong[0]), text.number(wrong[-1])
        said.append(f"bandwidths are printed {low if low == high else f'{low} to {high}'} times too large")
    return "; ".join(said)
