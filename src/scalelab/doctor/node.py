"""One node of a job that looks at itself: ``srun python -m scalelab.doctor.node ORDER``. The first one asks the others, and prints."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from scalelab.doctor.asking import Place, Questions, gather
from scalelab.doctor.findings import diagnosis
from scalelab.doctor.network import findings
from scalelab.doctor.there.answers import ANSWERS, answer
from scalelab.doctor.told import Asked
from scalelab.errors import RunError, ScalelabError
from scalelab.launch.hosts.clocks import ahead
from scalelab.launch.inside import world as worlds
from scalelab.launch.inside.meeting import meet
from scalelab.launch.inside.peer import PATIENCE, Peer, greet, reach
from scalelab.launch.pool import Pool

ANSWER = 90.0
"""seconds for one answer of a busy node"""


class Order(msgspec.Struct, frozen=True):
    """What the nodes are to find out."""

    code: str
    out: str
    token: str
    inode: int
    environment: dict[str, str]
    port: int | None = None
    interface: str | None = None


def main(text: str, environ: Mapping[str, str]) -> int:
    """The first node prints a diagnosis; the others answer until it has gone. The exit status."""
    environ = {
        name: value for name, value in environ.items() if name.startswith("SLURM_")
    }  # MASTER_ADDR is looked at, not believed
    order, world = msgspec.json.decode(text, type=Order), worlds.found(environ)
    own = Place(socket.gethostname(), lambda name, question: ANSWERS[name](question))
    if world is None:
        show([own], order)
        return 0
    with Pool() as pool:  # which never starts: Slurm tells all where the first node is
        spot, listener = meet(world, environ, None, pool)
    if listener is None:
        serve(reach(spot, world.token, lambda: None))
        return 0
    listener.settimeout(PATIENCE)
    with listener:
        try:
            peers = [greet(listener, world.token) for _ in range(world.size - 1)]
        except TimeoutError:
            raise RunError(f"a node did not come to {own.name} within {PATIENCE:g} seconds") from None
    show([own, *(_place(peer) for peer in peers)], order)
    for peer in peers:
        peer.close()
    return 0


def show(places: list[Place], order: Order) -> None:
    """Ask all, and print what comes out."""
    told, links = gather(
        places, Questions(order.out, order.token, order.environment.get("MASTER_ADDR"), order.interface, order.port)
    )
    asked = Asked(order.environment, order.code, order.inode, order.out, shared=True)
    found = findings(sorted(told, key=lambda one: one.name), asked)
    print(msgspec.json.encode(diagnosis([place.name for place in places], found, links)).decode(), flush=True)


def serve(peer: Peer) -> None:
    """Answer the first node until it has gone."""
    peer.tell({"do": "hello", "host": socket.gethostname()})
    while peer.over is None:
        message = peer.hear(0.2)
        if message is None:
            continue
        question = message[0]["question"]
        try:
            said: dict[str, Any] = {"answer": time.time() if question["name"] == "time" else answer(question)}
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        peer.tell({"do": "answer", "number": message[0]["number"], **said})


def _place(peer: Peer) -> Place:
    name, numbers = _heard(peer)["host"], itertools.count()

    def ask(what: str, question: dict[str, Any]) -> Any:
        peer.tell({"do": "ask", "number": next(numbers), "question": {**question, "name": what}})
        said = _heard(peer)
        if "error" in said:
            raise RunError(f"{name}: {said['error']}")
        return said["answer"]

    return Place(name, ask, clock=ahead(lambda: float(ask("time", {}))))


def _heard(peer: Peer) -> dict[str, Any]:
    deadline = time.monotonic() + max(ANSWER, PATIENCE)
    while time.monotonic() < deadline:
        message = peer.hear(0.2)
        if message is not None:
            return message[0]
        if peer.over is not None:
            raise RunError(f"a node is gone: {peer.over}")
    raise RunError("a node did not answer")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], os.environ))
    except ScalelabError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
