"""A study's flags: which fields take several values, its own options, and the question that they make."""

from __future__ import annotations

import argparse
import re
from argparse import Namespace
from typing import Any

import msgspec

from scalelab import spec as specs
from scalelab.cli.flags import Parser, values_of
from scalelab.errors import ScalelabError
from scalelab.launch.launcher import Launcher
from scalelab.studies.study import SILENCE, Asked, Option, Study

FIXED = ("name", "resume", "out", "stop_after_epoch")
"""fields that a study sets itself, or that would end its trainings early"""
COUNTS = re.compile(r"\d+(,\d+)+")
"""several whole numbers as one word"""


class StudyParser(Parser):
    """The parser of one study, whose defaults are its own."""

    def set_study_defaults(self, study: Study) -> None:
        """Show in --help what this study takes where the user says nothing."""
        given = {"timeout": SILENCE, **study.base, **study.varies}
        for action in self._actions:
            if action.dest in given:
                action.help = shown_default(action.help or "", given[action.dest], study.quick.get(action.dest))
            elif action.dest in study.quick and action.dest in specs.FIELDS:
                action.help = f"{action.help} (with --quick {said(study.quick[action.dest])})"


def shown_default(text: str, value: Any, quick: Any) -> str:
    """The help text with ``value`` as its default in place of the spec's."""
    plain = text.partition(" (default ")[0].partition(" (default: ")[0]
    return f"{plain} (default here: {said(value)}{'' if quick is None else f'; with --quick {said(quick)}'})"


def said(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def add_options(parser: argparse.ArgumentParser, study: Study) -> None:
    """The flags that only this study has. The default of an option decides its type; that of a list takes several values."""
    group = parser.add_argument_group("what only this study has") if study.options else None
    for option in study.options:
        assert group is not None
        flag, quick = "--" + option.name.replace("_", "-"), study.quick.get(option.name)
        default = "" if option.default in (None, []) else f"default {said(option.default)}"
        small = "" if quick is None else f"with --quick {said(quick)}"
        text = option.text.replace("%", "%%") + (f" ({'; '.join(filter(None, (default, small)))})" if default or small else "")
        if isinstance(option.default, bool):
            group.add_argument(flag, dest=option.name, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            many: dict[str, Any] = {"nargs": "+"} if isinstance(option.default, list) else {}
            group.add_argument(flag, dest=option.name, metavar=option.metavar, default=None, help=text, **many)


def repeats_of(study: Study, parsed: Namespace) -> int:
    """How often each point is trained. Raises ScalelabError."""
    if parsed.repeats is None:
        return 1 if parsed.quick else study.repeats
    flag = "--seeds" if study.seeded else "--repeats"
    found = number(flag, parsed.repeats, int)
    if found < 1:
        raise ScalelabError(f"{flag} {parsed.repeats}: each point is trained once at least")
    return int(found)


def asked_for(study: Study, parsed: Namespace, launcher: Launcher) -> Asked:
    """The flags as a question to where ``launcher`` runs. Raises ScalelabError."""
    changes = {"timeout": SILENCE, **study.base, **study.varies}
    quick = study.quick if parsed.quick else {}
    changes |= {name: value for name, value in quick.items() if name in specs.FIELDS}
    if launcher.slots is not None and "workers" in changes and "workers" not in study.varies:
        changes["workers"] = launcher.slots
    values = values_of(parsed, changes, several=tuple(study.varies))
    refuse_other_ways(study, values)
    varied = {name: distinct(name, listed(values.pop(name))) for name in study.varies}
    options = {option.name: option_value(option, getattr(parsed, option.name), quick) for option in study.options}
    base, places = specs.from_mapping(values, flags=True), launcher.places
    if study.hosts and not places:
        raise ScalelabError(f"study {study.name} compares hosts, and none are named: say which, as in --hosts h1:2,h2:2")
    if study.hosts and base.shares is None:
        base = msgspec.structs.replace(base, shares=launcher.shares(msgspec.structs.replace(base, workers=launcher.slots or 1)))
    where = ",".join(f"{host}:{slots}" for host, slots in places)
    return Asked(base, varied, options, parsed.quick, launcher.cores, places, where)


def refuse_other_ways(study: Study, values: dict[str, Any]) -> None:
    """Raises ScalelabError for a flag that says in another way what this study varies: ``--batch`` where it is ``--batch-per-worker``."""
    for pair in specs.WAYS:
        for name, other in (pair, pair[::-1]):
            if name in study.varies and name not in values:
                flag, instead = (f"--{field.replace('_', '-')}" for field in (other, name))
                if values.get(other) is not None:
                    raise ScalelabError(f"{flag} {said(values[other])}: study {study.name} varies {instead}; say it with that")
    for name in study.varies:
        if values.get(name) in (None, []):
            raise ScalelabError(f"--{name.replace('_', '-')}: study {study.name} needs at least one value to try")


def distinct(name: str, values: list[Any]) -> list[Any]:
    """The values, each of the field's type, each once; ``4,8`` of numbers are two. Raises ScalelabError."""
    values = [part for value in values for part in (value.split(",") if COUNTS.fullmatch(str(value)) else [value])]
    return list(dict.fromkeys(getattr(specs.from_mapping({name: value}, flags=True), name) for value in values))


def listed(value: Any) -> list[Any]:
    """A value, or several, as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def option_value(option: Option, given: Any, quick: dict[str, Any]) -> Any:
    """What the user gave, as the default's type; else --quick's value, else the default. Raises ScalelabError."""
    if given is None:
        return quick.get(option.name, option.default)
    flag = "--" + option.name.replace("_", "-")
    if isinstance(option.default, list):
        kind = type(option.default[0]) if option.default else str
        return list(dict.fromkeys(number(flag, one, kind) for one in given))
    kind = str if option.default is None else type(option.default)
    return number(flag, given, kind)


def number(flag: str, value: Any, kind: type) -> Any:
    """``value`` as ``kind``. Raises ScalelabError in one line."""
    if kind not in (int, float):
        return value
    try:
        return kind(value)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ScalelabError(f"{flag} {value!r}: expected {what}") from None
