"""What a host tells of itself before anything starts there. Runs on that host, in its agent; imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from scalelab import spec as specs
from scalelab.errors import ScalelabError
from scalelab.launch.hosts import interfaces
from scalelab.limits import available_bytes
from scalelab.measure.environment import files
from scalelab.spec import Spec

IN_FOLDER = ("cifar10", "cifar100", "svhn")
"""data that ``--data-dir`` is the folder of"""
AT_PATH = ("folder:", "parquet:")


def look(question: dict[str, Any]) -> dict[str, Any]:
    """Everything else that is checked. ``question``: {"spec": its fields}."""
    there = interfaces.listing()
    scratch = tempfile.gettempdir()
    return {
        "identity": identity(),
        "interfaces": interfaces.plain(there),
        "memory": available_bytes(),
        "scratch": scratch,
        "disk": shutil.disk_usage(scratch).free,
        "tmpdir": unusable(os.environ.get("TMPDIR") or scratch),
        **_read(question["spec"]),
    }


def unusable(folder: str) -> str | None:
    """Why nothing can be written into a folder for scratch; None where it can. Python's own choice passes over such a one in silence."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return None


def route(question: dict[str, Any]) -> dict[str, Any]:
    """{"name", "address"} of the interface that ``question`` means: {"interface": name, subnet or None, "towards": an address, or None}."""
    there, wanted, towards = interfaces.listing(), question["interface"], question["towards"]
    version = interfaces.version_of(towards) if towards else None
    try:
        found = interfaces.chosen(wanted, there, version) if wanted else interfaces.routed(towards, there)
    except ScalelabError as error:
        return {"error": str(error)}
    return {"name": found.name, "address": found.address}


def own(question: dict[str, Any]) -> dict[str, Any]:
    """{"address"}: that of this host which {"name"}, a name or an address, means; or {"error"}.

    "prefer": where its interface has an address of this version of the protocol too (4 or 6), that one.
    """
    there, name = interfaces.listing(), question["name"]
    try:
        found = [row[4][0] for row in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError as error:
        return {"error": f"{name}: {error.strerror}"}
    mine = next((address for address in found if address in interfaces.reachable_as(there)), None)
    if mine is None:
        return {"error": f"{name} is not its address; it has {interfaces.described(there)}"}
    return {"address": interfaces.beside(mine, there, question["prefer"]) if question.get("prefer") else mine}


def connect(question: dict[str, Any]) -> dict[str, Any]:
    """Connect from this host's address ``source`` to {"address", "port"}, within ``seconds``; {} or {"error"}."""
    source = (question["source"], 0) if question.get("source") else None
    try:
        with socket.create_connection((question["address"], question["port"]), question["seconds"], source):
            return {}
    except OSError as error:
        return {"error": error.strerror or str(error)}


def identity() -> str:
    """The same for two names of one host, and for no two hosts: its name, its boot, its network interfaces."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    addresses = sorted(interfaces.reachable_as(interfaces.listing()))
    return hashlib.sha256("\n".join([socket.gethostname(), boot, *addresses]).encode()).hexdigest()[:12]


def digest(spec: Spec) -> str:
    """Twelve digits of a spec, but for where its data is: equal where two hosts mean the same training."""
    plain = msgspec.structs.replace(spec, data_dir=None)
    return hashlib.sha256(msgspec.json.encode(msgspec.to_builtins(plain), order="sorted")).hexdigest()[:12]


def _read(fields: dict[str, Any]) -> dict[str, Any]:
    """What this host makes of the spec: its digest, those of the user's files, which of the named paths are there."""
    try:
        spec = specs.from_mapping(fields)
    except ScalelabError as error:
        return {"error": str(error)}
    return {
        "spec": digest(spec),
        "files": files(spec),
        "paths": {path: Path(path).expanduser().exists() for path in named(spec)},
        **weights(spec),
    }


def weights(spec: Spec) -> dict[str, str]:
    """{"weights": what the initial weights hash to}, of a run those that its best checkpoint names; {} where there are none."""
    if not spec.weights or spec.resume:
        return {}
    path = Path(spec.weights).expanduser()
    pointers = [path / "checkpoints" / name for name in ("best.json", "last.json")] if path.is_dir() else [path]
    for file in pointers:
        with contextlib.suppress(OSError), file.open("rb") as opened:
            return {"weights": hashlib.file_digest(opened, "sha256").hexdigest()[:12]}
    return {}


def named(spec: Spec) -> list[str]:
    """Paths that every rank reads: of data and of initial weights."""
    found = [spec.data.partition(":")[2]] if spec.data.startswith(AT_PATH) else []
    found += [spec.data_dir] if spec.data_dir and spec.data in IN_FOLDER else []
    return found + ([spec.weights] if spec.weights and not spec.resume else [])


Answer = Callable[[dict[str, Any]], Any]
ANSWERS: dict[str, Answer] = {"look": look, "route": route, "connect": connect, "own": own}
"""what a host can be asked, and what answers"""
