"""Which environment variables go from the launching machine to the ranks of other hosts. They go over ssh, never in a command line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.measure.environment import LISTEN_FD, STARTED

FILE = ".scalelab_env"
PREFIXES = ("NCCL_", "GLOO_", "OMP_", "UCX_", "FI_")
"""of the launching process's environment: what tunes the libraries that ranks talk and compute with"""
OURS = {
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT",
    STARTED, LISTEN_FD,
}  # fmt: skip
"""what says which rank a process is: nobody else may"""
SECRET = re.compile(
    r"TOKEN|SECRET|PASS(?:WORD|WD|PHRASE|_|\d|$)|KEY|CREDENTIAL|PRIVATE|COOKIE|SESSION|AUTH(?!ORS?(?:_|$))|(?:^|_)(?:PAT|PWD)(?:_|$)",
    re.IGNORECASE,
)
"""in the name of a variable whose value is shown to nobody"""
SECRET_VALUE = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
"""a password in an address"""
HIDDEN = "****"
QUOTED = re.compile(r"""(["'])((?:(?!\1).)*)\1(?:\s*#.*)?""")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def forwarded(asked: Sequence[str], own: Mapping[str, str], folders: Sequence[Path]) -> dict[str, str]:
    """What all ranks get: by prefix from ``own`` environment, from ``.scalelab_env`` in ``folders``, and ``asked`` (``--env``).

    Later ones win, of folders too. Raises ScalelabError that names file and line.
    """
    found = {name: value for name, value in own.items() if name.startswith(PREFIXES)}
    for folder in folders:
        found.update(_of_file(folder / FILE, own))
    for text in asked:
        found.update([_assignment(text, own, f"--env {text.partition('=')[0] or '=…'}")])
    return found


def shown(environment: Mapping[str, str]) -> dict[str, str]:
    """The same to be printed: values of secrets are replaced."""
    return {name: HIDDEN if is_secret(name, value) else value for name, value in environment.items()}


def is_secret(name: str, value: str) -> bool:
    """Whether a variable looks like a secret, by its name or by what it holds."""
    return bool(SECRET.search(name) or SECRET_VALUE.search(value))


def recordable(command: Iterable[str]) -> list[str]:
    """A command line without the values that ``--env`` gives, as records keep it."""
    kept, value_next = [], False
    for word in command:
        flag, equals, rest = word.partition("=")
        if value_next:
            word = _without_value(word)
        elif flag == "--env" and equals:
            word = f"--env={_without_value(rest)}"
        value_next = word == "--env"
        kept.append(word)
    return kept


def _without_value(text: str) -> str:
    name, equals, _ = text.partition("=")
    return f"{name}={HIDDEN}" if equals else text


def _of_file(path: Path, own: Mapping[str, str]) -> dict[str, str]:
    """The variables of a file with a line for each: ``KEY=VALUE``, or ``KEY`` for the launching process's own value."""
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScalelabError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, value = _assignment(text, own, f"{path}:{number}")
            found[name] = _unquoted(value, f"{path}:{number}: {name}") if "=" in text else value
    return found


def _assignment(text: str, own: Mapping[str, str], where: str) -> tuple[str, str]:
    """(name, value). The value is not in an error: it may be a secret."""
    name, equals, value = text.partition("=")
    if not name:
        raise ScalelabError(f"{where}: the name before the = is missing; expected KEY=VALUE, or KEY for its value here")
    if not NAME.match(name):
        raise ScalelabError(f"{where}: expected KEY=VALUE, or KEY for its value here; a name has letters, digits and underscores")
    if name in OURS:
        raise ScalelabError(
            f"{where}: {name} is set for each rank by scalelab; leave it out (--master-addr and --master-port are flags)"
        )
    if "\0" in value:
        raise ScalelabError(f"{where}: the value of {name} holds a zero byte, which no environment can")
    if equals:
        return name, value
    if name not in own:
        raise ScalelabError(f"{where}: {name} is not set here; give its value too, as {name}=VALUE")
    return name, own[name]


def _unquoted(value: str, where: str) -> str:
    """A value in quotes is what they hold; behind them a comment may stand. Raises ScalelabError where anything else does."""
    if value[:1] not in ("'", '"') or value.count(value[0]) < 2:  # a lone one is a part of the value
        return value
    if (quoted := QUOTED.fullmatch(value)) is None:
        raise ScalelabError(
            f"{where}: more than a # comment stands behind the closing quote; quote all of the value, or nothing of it"
        )
    return quoted[2]
