"""From points and a command to tasks. What can be wrong is told here, before anything starts."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from scalelab.errors import ScalelabError, nearest
from scalelab.record.sweep import MetricRead, PlannedTask
from scalelab.sweep.job import placeholders
from scalelab.sweep.metric import OUTPUT, Metric
from scalelab.sweep.space import Point
from scalelab.sweep.template import fill, names

INTERPRETERS = re.compile(r"(?:python|pypy)[\d.]*|(?:ba|da|z)?sh|perl|ruby|node|julia|Rscript|env|scalelab")
"""what a program is not called by, when something follows that it is"""
DIGITS = 19
"""of a whole number that every JSON reader takes: below 2**63"""
OWN = tuple(placeholders({}, 0, 0, 0))
"""placeholders that every sweep has"""


def check(argv: Sequence[str], parameters: Sequence[str], listed: Sequence[str], metrics: Sequence[Metric]) -> list[str]:
    """Notes for the user. Raises ScalelabError for a placeholder that nothing fills in, or a parameter that nothing uses.

    ``listed``: those of the parameters that are columns of a file: one that is not used is only noted.
    """
    for place, word in enumerate(argv):
        encodable(f"argument {place}", word)
    used = {name: place for place, word in enumerate(argv) for name in _names(word, place)}
    used |= {name: -1 for metric in metrics if metric.file is not None for name in names(metric.file)}
    for name, place in used.items():
        if name not in parameters and name not in OWN:
            known = [*parameters, *OWN]
            where = f"argument {place}, {argv[place]!r}" if place >= 0 else "--metric-json"
            raise ScalelabError(
                f"{where}: no parameter is called {name!r}{nearest(name, known)}; known: {', '.join(known)}"
                + ("" if place < 0 else "; '{{' stands for a brace")
            )
    unused = [name for name in parameters if name not in used]
    for name in unused:
        if name not in listed:
            raise ScalelabError(f"parameter {name!r} is not used: write {{{name}}} where its value belongs in the command")
        if name in ("task", "repeat"):
            raise ScalelabError(f"parameter {name!r}: every sweep has {{{name}}} by itself; give it another name")
    return [f"column {name!r} is not used in the command" for name in unused]


def tasks(argv: Sequence[str], points: Iterable[Point], repeats: int, seed: int) -> list[PlannedTask]:
    """A task for each point and repeat: all points once, then all again, so that what drifts meets all alike.

    Repeat r of every point has the seed ``seed`` + r, unless ``seed`` is a parameter.
    """
    found: list[PlannedTask] = []
    held = list(points)
    for repeat in range(repeats):
        for point in held:
            number = len(found)
            given = point.get("seed", "")
            own = int(given) if given.isdecimal() and len(given) < DIGITS else seed + repeat
            filled = placeholders(point, number, repeat, own)
            words = [fill(word, filled) for word in argv]
            found.append(PlannedTask(task=number, values=point, repeat=repeat, seed=own, argv=words))
    return found


def notes(argv: Sequence[str], repeats: int) -> list[str]:
    """What is allowed, but perhaps not what the user meant."""
    used = {name for word in argv for name in names(word)}
    if repeats > 1 and not used & {"seed", "repeat", "task"}:
        return [f"the command has no {{seed}}: nothing that scalelab gives tells the {repeats} repeats of a point apart"]
    return []


def apart(metrics: Sequence[Metric | MetricRead], found: Sequence[PlannedTask]) -> None:
    """Whether tasks that run at once read their metrics from files of their own. Raises ScalelabError: one would have another's number."""
    for file in {one.file for one in metrics} - {None, OUTPUT}:
        assert file is not None, "it was taken out"
        own = {fill(file, placeholders(task.values, task.task, task.repeat, task.seed)) for task in found}
        if len(own) < len(found):
            raise ScalelabError(
                f"--metric-json {file}: {len(found)} tasks would write {len(own)} file{'s' * (len(own) != 1)}, and those that run at "
                "once read each other's numbers: write {task} into its name and the command, or run one at a time (--jobs 1)"
            )


def findable(argv: Sequence[str]) -> None:
    """Whether the program is here. Raises ScalelabError."""
    if names(argv[0]):  # it is itself varied
        return
    program = fill(argv[0], {})
    if shutil.which(program) is None:
        path = Path(program)
        what = "is not executable: chmod +x" if path.is_file() else "is a folder" if path.is_dir() else "is not found"
        hint = f"; did you mean ./{program}?" if os.sep not in program and os.access(program, os.X_OK) else ""
        raise ScalelabError(f"{program}: {what}{hint}")


def called(argv: Sequence[str]) -> str:
    """What people call the program: ``train.py`` of ``python -u train.py``."""
    first = Path(argv[0]).name
    script = next((word for word in argv[1:] if not word.startswith("-") and not names(word)), "")
    named = Path(script).name if INTERPRETERS.fullmatch(first) and re.fullmatch(r"[\w./-]{1,60}", script) else ""
    if first == "scalelab" and named:
        return f"scalelab {named}"
    return named or first or "program"


def _names(word: str, place: int) -> list[str]:
    try:
        return names(word)
    except ScalelabError as error:
        raise ScalelabError(f"argument {place}: {error}") from None


def encodable(what: str, text: str) -> None:
    """Raises ScalelabError for what no JSON file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ScalelabError(f"{what}, {text!r}: is not UTF-8 text, which the records are kept in") from None
