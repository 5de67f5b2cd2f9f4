"""Which hosts, as a user says it: ``--hosts h1:4,h2:4``, or a file with a line for each host."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalelab.errors import ScalelabError, nearest
from scalelab.launch.hosts.placement import Place

FORM = "expected HOST:SLOTS,HOST:SLOTS such as h1:4,h2:4, with IPv6 addresses in brackets: [fd00::2]:4"
NAME = re.compile(r"[A-Za-z0-9_%@:.][A-Za-z0-9_%@:.-]*\Z")
"""of a host, with ``user@`` before it or not: what ssh takes, and never a flag of it"""
LOOKS_LIKE_A_FILE = re.compile(r"/|\.(?:txt|hosts|conf|cfg|ya?ml|json|csv)\Z|hostfile|machinefile")


def hosts_of(text: str) -> tuple[Place, ...]:
    """The hosts that ``--hosts`` names, in order. Raises ScalelabError, also for a hostfile that is not there."""
    try:
        path = Path(text).expanduser()
        if path.is_file() or path.is_fifo():  # --hosts <(make_hosts)
            return read(path)
        if text and path.is_dir():
            raise ScalelabError(f"--hosts {text}: is a folder; name a hostfile, or a host with its slots, as in h1:4")
    except OSError:  # too long for a path: a list
        pass
    if LOOKS_LIKE_A_FILE.search(text) and "," not in text:
        raise ScalelabError(f"--hosts {text}: there is no such file; nothing runs here instead")
    return listed(text)


def listed(text: str) -> tuple[Place, ...]:
    """``h1:4,h2`` as hosts. Raises ScalelabError."""
    found = []
    for part in text.split(","):
        try:
            host, slots = named(part.strip())
        except ValueError as error:
            raise ScalelabError(f"--hosts {text}: {error}; {FORM}") from None
        found.append(Place(host, slots=1 if slots is None else slots))
    _distinct([(place.host, f"--hosts {text}") for place in found])
    return tuple(found)


def read(path: Path) -> tuple[Place, ...]:
    """The hosts of a hostfile, in order. Raises ScalelabError that names the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise ScalelabError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    found, where = [], []
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
            if words:
                found.append(_place(words))
                where.append((found[-1].host, f"{path}:{number}"))
        except ValueError as error:
            said = str(error)
            raise ScalelabError(f"{path}:{number}: {said[0].lower()}{said[1:]}") from None
    if not found:
        raise ScalelabError(f"{path}: names no host; a line is as `h1 slots=4`")
    _distinct(where)
    return tuple(found)


def named(text: str) -> tuple[str, int | None]:
    """(host, slots) of ``h1``, ``h1:4``, ``[fd00::2]:4``, ``fd00::2``. Raises ValueError."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", text)
    if bracketed:
        host, slots = bracketed[1], bracketed[2]
        if not _is_ipv6(host):
            raise ValueError(f"[{host}] is no IPv6 address")
    elif text.count(":") > 1:
        host, slots = text, None
        if not _is_ipv6(host):
            raise ValueError(f"'{text}' is neither HOST:SLOTS nor an IPv6 address")
    else:
        host, colon, slots = text.partition(":")
        slots = slots if colon else None
    if not NAME.match(host):
        raise ValueError("a host's name is missing" if not host else f"{host!r} is no host's name")
    return host, None if slots is None else _slots(slots)


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.rpartition("@")[2]).version == 6
    except ValueError:
        return False


def _place(words: list[str]) -> Place:
    host, slots = named(words[0])
    given: dict[str, Any] = {} if slots is None else {"slots": slots}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"'{word}' is not KEY=VALUE; values with spaces need quotes")
        if key not in KEYS:
            raise ValueError(f"unknown key '{key}'{nearest(key, KEYS)}; valid: {', '.join(KEYS)}")
        field, convert = KEYS[key]
        if field in given:
            raise ValueError(f"{key} is said twice")
        given[field] = convert(value)
    return Place(host, **given)


def _slots(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 10_000:
        raise ValueError(f"slots '{text}': expected a number of workers, at least 1")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 65535:
        raise ValueError(f"port '{text}': expected 1 to 65535, where that host's sshd listens")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1e9:
        raise ValueError(
            f"share '{text}': expected a positive number: how much of a batch it takes with all its slots, beside the other hosts"
        )
    return share


def _text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("a value is empty")
    return text


def _python(text: str) -> str:
    if text.startswith("-"):
        raise ValueError(f"python '{text}': expected the path of an interpreter")
    return _text(text)


KEYS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "slots": ("slots", _slots), "share": ("share", _share), "interface": ("interface", _text), "python": ("python", _python),
    "port": ("port", _port), "data-dir": ("data_dir", _text),
}  # fmt: skip
"""what a line may say of its host, the field of ``Place`` that it becomes, and how it is read"""


def _distinct(named_at: list[tuple[str, str]]) -> None:
    seen: dict[str, str] = {}
    for host, where in named_at:
        if host.lower() in seen:
            before = f", first at {seen[host.lower()]}" if seen[host.lower()] != where else ""
            raise ScalelabError(f"{where}: {host} is there twice{before}; say how many workers with slots, as in {host}:2")
        seen[host.lower()] = where
