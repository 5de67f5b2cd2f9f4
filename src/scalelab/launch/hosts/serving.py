"""What an agent does when it is asked to, by the name of the request."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

import msgspec

from scalelab import spec as specs
from scalelab.errors import ScalelabError
from scalelab.launch import asking
from scalelab.launch import ceiling as ceilings
from scalelab.launch.hosts import looking
from scalelab.launch.hosts.channel import Message
from scalelab.launch.hosts.copying import Copy
from scalelab.launch.hosts.mirror import Mirror
from scalelab.launch.hosts.ranks import Ranks
from scalelab.measure import environment

if TYPE_CHECKING:
    from scalelab.launch.hosts.agent import Agent


def hello(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """Take the launching process's folder, where there is one of that name here, and the environment; who this host is."""
    os.environ.update(message["env"])
    tempfile.tempdir = None  # TMPDIR may be another one now
    agent.settle()
    with contextlib.suppress(OSError):
        os.chdir(message["cwd"])
    return {
        "versions": _versions(), "code": environment.code(), "host": msgspec.to_builtins(environment.host()),
        "ssh": os.environ.get("SSH_CONNECTION", ""), "pid": os.getpid(), "cwd": os.getcwd(), "scratch": str(agent.scratch),
    }  # fmt: skip


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in environment.PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def ask(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """What "target" answers about the spec in ``body``; "run": the run that the spec goes on with."""
    spec = specs.from_mapping(json.loads(body))
    return {"answer": asking.ask(agent.pool, message["target"], spec, message["doing"], message["env"], agent.scratch)}


def ceiling(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """What this host can do at most, occupied as "occupied" says."""
    occupied = msgspec.convert(message["occupied"], ceilings.Occupied)
    return {"ceiling": msgspec.to_builtins(ceilings.measured(agent.pool, occupied, agent.scratch))}


def begin(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """Make the folder of a run here; where it is."""
    folder = agent.folder(message["run"])
    for part in ("logs", "failures", "checkpoints"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return {"folder": str(folder)}


def put(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """A part of a file of a run, "whole" as a ``Mirror`` sends it."""
    Copy(agent.folder(message["run"]), "").take({**message, "do": "whole"}, body)
    return {}


def start(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """Start ranks of a run whose folder is here: "ranks" by rank, each with its variables; "given": files that came from there."""
    folder = agent.folder(message["run"])
    ranks = {int(rank): env for rank, env in message["ranks"].items()}
    mirror = Mirror(folder, frozenset(ranks))
    for name in message["given"]:
        mirror.has(name)
    agent.training = Ranks(agent.pool, agent.writer, message["training"], folder, mirror)
    listener = agent.held.get(message["port"])
    agent.training.start(ranks, message["preload"], listener.fileno() if isinstance(listener, socket.socket) else None)
    return {}


def end(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """End the ranks of a training that still run."""
    if agent.training is not None and agent.training.training == message["training"]:
        agent.pool.end(list(agent.training.processes.values()), message["grace"])
    return {}


def stacks(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """Have ranks that still run write where they stand into their logs."""
    if agent.training is not None and agent.training.training == message["training"]:
        agent.pool.stacks(list(agent.training.processes.values()))
    return {}


def listen(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """A socket that listens at "address", held for rank 0. Raises ScalelabError where "port" is in use."""
    address, port = message["address"], message["port"]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port or 0))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        hint = f"--master-port {port}" if port else f"--master-addr {address}"
        raise ScalelabError(f"{hint}: {error.strerror}; leave it out for a free one") from None
    bound = listener.getsockname()[1]
    agent.held[bound] = listener
    return {"port": bound}


def release(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """Close the socket that was held for rank 0 at a port."""
    listener = agent.held.pop(message["port"], None)
    if isinstance(listener, socket.socket):
        listener.close()
    return {}


def forget(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """Remove the folder of a run that is over."""
    shutil.rmtree(agent.folder(message["run"]), ignore_errors=True)
    return {}


def digests(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """Of the files in "names", as they are here."""
    return {"digests": environment.digests(message["names"])}


def call(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """What scalelab's own "module" answers to the "question", in this process. Raises ScalelabError for a module of somebody else."""
    if not message["module"].startswith("scalelab."):
        raise ScalelabError(f"{message['module']} is not a module of scalelab")
    return {"answer": importlib.import_module(message["module"]).answer(message["question"])}


def warm(agent: Agent, message: Message, body: bytes) -> dict[str, Any]:
    """Begin to import what ranks need."""
    agent.pool.warm()
    return {}


def asked_of(answer: looking.Answer) -> Request:
    """A question of ``looking`` as a request."""
    return lambda agent, message, body: {"answer": answer(message)}


Request = Callable[["Agent", Message, bytes], dict[str, Any]]
REQUESTS: dict[str, Request] = {
    "hello": hello, "ask": ask, "ceiling": ceiling, "begin": begin, "put": put, "start": start, "end": end, "stacks": stacks,
    "listen": listen, "release": release, "forget": forget, "digests": digests, "call": call, "warm": warm,
    **{name: asked_of(answer) for name, answer in looking.ANSWERS.items()},
}  # fmt: skip
