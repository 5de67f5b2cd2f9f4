"""What goes to a host before ranks start there: the spec as it is meant there, and what the first rank goes on from."""

from __future__ import annotations

import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from pathlib import Path
from typing import Any

import msgspec

from scalelab import spec as specs
from scalelab.launch.hosts.channel import CHUNK, Message
from scalelab.launch.hosts.connection import Agent, Lost
from scalelab.launch.hosts.copying import Copy
from scalelab.spec import Spec

ROOM = 1 << 24
"""bytes that may wait to be sent before no more are read"""


def answer(agent: Agent, message: Message, body: bytes = b"") -> dict[str, Any]:
    """An agent's answer, however long it takes. Raises what it tells; Lost when it is gone."""
    return until(agent, agent.post(message, body))


def until(agent: Agent, future: Future[dict[str, Any]]) -> dict[str, Any]:
    """Wait for an answer, as long as the agent lives."""
    while True:
        try:
            return future.result(1.0)
        except Late:
            agent.check()


def for_host(agent: Agent, spec: Spec, folder: Path | None = None) -> Spec:
    """The spec as it is meant on a host: its own data, and the run that it goes on with, which is sent there."""
    spec = msgspec.structs.replace(spec, data_dir=agent.place.data_dir or spec.data_dir)
    if spec.resume is None:
        return spec
    run = Path(spec.resume)
    there = answer(agent, {"do": "begin", "run": run.name})["folder"]
    if folder is None:
        for name in kept(run):
            send(agent, run, name)
    return msgspec.structs.replace(spec, resume=there)


def push(agent: Agent, copy: Copy, folder: Path, spec: Spec, first: bool) -> list[str]:
    """Send what a host's ranks need of a run that begins; the names of the files. ``first``: the host of rank 0."""
    answer(agent, {"do": "begin", "run": folder.name})
    body = specs.dump(for_host(agent, spec, folder)).encode()
    answer(agent, {"do": "put", "run": folder.name, "path": "spec.yaml", "at": 0, "last": True}, body)
    names = kept(folder) if first else []
    for name in names:
        send(agent, folder, name)
        copy.known(name)
    return [*names, "spec.yaml"]


def kept(run: Path) -> list[str]:
    """What the first rank reads of its run: the record, the steps, the checkpoints before the pointers to them."""
    found = [run / "record.json", run / "steps.jsonl", *sorted((run / "checkpoints").glob("*.safetensors"))]
    found += sorted((run / "checkpoints").glob("*.json"))
    return [path.relative_to(run).as_posix() for path in found if path.exists()]


def send(agent: Agent, run: Path, name: str) -> None:
    """A file of a run, where the host does not have it already as it is now. Raises Lost."""
    path = run / name
    with path.open("rb") as file:
        status = path.stat()
        known = (status.st_ino, status.st_size, status.st_mtime_ns)
        if agent.has.get((run.name, name)) == known:
            return
        at = 0
        while True:
            body = file.read(CHUNK)
            last = len(body) < CHUNK
            message = {"do": "put", "run": run.name, "path": name, "at": at, "last": last}
            if last:
                answer(agent, message, body)
                break
            agent.tell(message, body)
            at += len(body)
            _wait(agent)
    agent.has[run.name, name] = known


def forget(agent: Agent, run: Path) -> None:
    """Have the host remove what it has of a run."""
    agent.has = {place: state for place, state in agent.has.items() if place[0] != run.name}
    agent.tell({"do": "forget", "run": run.name})


def _wait(agent: Agent) -> None:
    """Until less waits to be sent. Raises Lost."""
    while agent.waiting > ROOM:
        agent.check()
        if agent.lost is not None:
            raise Lost(f"{agent.place.host}: {agent.lost}")
        time.sleep(0.01)
