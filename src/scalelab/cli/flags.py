"""Flags from the spec: each field is a flag of its name. argparse only splits the words; the spec checks the values."""

from __future__ import annotations

import argparse
import shutil
import textwrap
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from scalelab import spec as specs
from scalelab.errors import ScalelabError, nearest
from scalelab.record import folder as records
from scalelab.spec import Spec

TITLES = {
    "task": "what is learnt",
    "strategy": "how it is spread",
    "parallel": "what only some strategies have",
    "batch": "batch: batch = micro-batch x accumulate x replicas",
    "optimization": "how it is learnt",
    "length": "how long",
    "record": "what is kept and measured",
}


WIDEST = 118
"""columns of --help at most, and where it goes to no terminal"""
METAVARS = {
    "out": "FOLDER", "data_dir": "FOLDER", "resume": "RUN", "shares": "A:B", "split": "MODULES", "deepspeed_config": "FILE",
    "weights": "FILE", "freeze": "PATTERNS",
}  # fmt: skip
"""what a flag's value is called, where it is no name"""
FILES = (".safetensors", ".pt", ".pth", ".bin")
"""what a file of weights may be: what is called otherwise, and is not there, is a run's name"""
BARE: dict[str, dict[str, Any]] = {"offload": {"nargs": "?", "const": "all"}}
"""flags that mean something without a value"""


class Parser(argparse.ArgumentParser):
    """argparse, with errors in our form, no abbreviations, and the nearest name for an unknown flag."""

    def __init__(self, command: str, description: str, example: str, **kwargs: Any) -> None:
        width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
        super().__init__(
            prog=f"scalelab {command}",
            description="\n".join(textwrap.fill(line, width) for line in description.splitlines()),
            epilog=f"examples:\n{example}",
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=34, width=width),
            **kwargs,
        )

    def error(self, message: str) -> NoReturn:
        raise ScalelabError(message.replace("argument ", "", 1) if message.startswith("argument ") else message)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The flags' values. Raises ScalelabError."""
        values, rest = self.parse_known_args(list(words))
        for word in rest:
            name = word.split("=")[0]
            flags = [flag for action in self._actions for flag in action.option_strings]
            if name.startswith("-"):
                raise ScalelabError(f"unknown flag '{name}'{nearest(name, flags)}; `{self.prog} --help` lists them")
            raise ScalelabError(f"'{word}' is not expected here; `{self.prog} --help` shows the form")
        return values


def add_spec(parser: argparse.ArgumentParser, leave_out: Iterable[str] = (), several: Iterable[str] = ()) -> None:
    """A flag for each field of the spec but those in ``leave_out``; those in ``several`` take many values."""
    parser.add_argument("--spec", metavar="FILE", help="YAML file with any of these keys; flags override it")
    groups = {name: parser.add_argument_group(title) for name, title in TITLES.items()}
    hints = typing.get_type_hints(Spec)
    for name, default in specs.defaults().items():
        if name in leave_out:
            continue
        flag, group = "--" + name.replace("_", "-"), groups[specs.GROUPS[name]]
        text = specs.HELP[name].replace("%", "%%")
        shown = "" if default is None or default == {} or isinstance(default, bool) else f" (default {default})"
        if name == "model_args":
            group.add_argument(
                "--model-arg",
                dest=name,
                action="append",
                metavar="KEY=VALUE",
                default=argparse.SUPPRESS,
                help=text.split(", ", 1)[1],
            )
        elif hints[name] is bool:
            group.add_argument(
                flag,
                dest=name,
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                help=f"{text} (default {'on' if default else 'off'})",
            )
        else:
            many: dict[str, Any] = {"nargs": "+"} if name in several else BARE.get(name, {})
            group.add_argument(
                flag, dest=name, metavar=_metavar(name, hints[name]), default=argparse.SUPPRESS, help=text + shown, **many
            )


def add_common(parser: argparse.ArgumentParser) -> None:
    """The flags that mean the same everywhere."""
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, everything else on stderr")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def values_of(parsed: argparse.Namespace, base: dict[str, Any] | None = None, several: Iterable[str] = ()) -> dict[str, Any]:
    """The spec's fields that were given, by flag or in ``--spec``'s file, over ``base``. Raises ScalelabError.

    ``several``: fields that may be lists of values; each value is checked by whoever takes them apart.
    """
    values: dict[str, Any] = dict(base or {})
    if getattr(parsed, "spec", None):
        path = Path(parsed.spec)
        given = specs.read_yaml(path)
        lists = {name for name in several if isinstance(given.get(name), list)}
        specs.from_mapping({n: v for n, v in given.items() if n not in lists}, source=str(path))  # names the file in the error
        values = specs.over(values, given)
    flags = {name: value for name, value in vars(parsed).items() if name in specs.FIELDS}
    if "model_args" in flags:
        flags["model_args"] = dict(_pair(text) for text in flags["model_args"])
    return _with_run(specs.over(values, flags))


def _with_run(values: dict[str, Any]) -> dict[str, Any]:
    """``weights`` that name a run, as every command may, become its folder. Raises ScalelabError where none or several match."""
    path = Path(str(values.get("weights") or "."))
    if path.suffix in FILES or path.exists():  # a run's name may have a dot too: lr-0.1
        return values
    return {**values, "weights": str(records.find([str(path)], Path(str(values.get("out", "runs"))))[0])}


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ScalelabError(f"--model-arg '{text}': must be KEY=VALUE, such as depth=3")
    import yaml  # for this flag alone

    try:
        return key, yaml.safe_load(value)
    except (ValueError, yaml.YAMLError) as error:  # ValueError: 2020-02-31
        raise ScalelabError(f"--model-arg '{text}': cannot be read as YAML: {' '.join(str(error).split())}") from None


def _metavar(name: str, hint: Any) -> str:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else (hint,)
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(typing.get_args(hint))
    for kind, shown in ((int, "N"), (float, "X")):
        if kind in kinds:
            return shown
    return METAVARS.get(name, "NAME")
