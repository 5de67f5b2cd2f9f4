"""Asking hosts, all at once, and pair by pair where two hosts are to talk to each other."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from scalelab.doctor.findings import Link
from scalelab.doctor.told import Told
from scalelab.errors import ScalelabError
from scalelab.launch.hosts.interfaces import chosen
from scalelab.measure.statistics import absent, figure

BANDWIDTH = 0.8
"""seconds of sending, a pair"""
REACH = 2.0
"""seconds for a connection"""

Ask = Callable[[str, dict[str, Any]], Any]
"""(an answer's name, its question) → what the host tells. Raises ScalelabError when it is lost."""


@dataclass(frozen=True)
class Place:
    """A host that can be asked; ``ask`` None where it could not be reached, and ``why``."""

    name: str
    ask: Ask | None
    why: str | None = None
    clock: tuple[float, float] | None = None
    workers: int = 1
    """that it is to run"""
    interface: str | None = None
    """its own, where it is not ``Questions.interface``"""


@dataclass(frozen=True)
class Questions:
    """What is to be found out besides the machines' own facts."""

    out: str | None = None
    token: str | None = None
    """path of a file in ``out`` that was just written"""
    master: str | None = None
    """what MASTER_ADDR says"""
    interface: str | None = None
    """over which hosts speak to each other, by its name or a subnet; None: over whichever answers first"""
    port: int | None = None
    """one more port that has to be free on the first host, and open to the others: --master-port"""


def gather(places: Sequence[Place], questions: Questions) -> tuple[list[Told], list[Link]]:
    """What all hosts tell, and how fast they reach each other."""
    if len(places) == 1:  # asked by this thread: Ctrl-C then ends the programs that answer, too
        machines = [_about(places[0], questions)]
    else:
        with together(len(places)) as threads:
            machines = list(threads.map(lambda place: _about(place, questions), places))
    there = [place for place, told in zip(places, machines, strict=True) if told.unreachable is None]
    meeting = len(there) > 1 or (there and questions.port)
    closed, links = between(there, questions, {told.name: told for told in machines}) if meeting else ({}, [])
    logins = _logins(there)
    return [replace(told, logins=logins.get(told.name, {}), closed=closed.get(told.name, {})) for told in machines], links


@contextmanager
def together(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads to ask hosts at once. Whoever is interrupted does not wait for answers: they end with the connections to the hosts."""
    threads = ThreadPoolExecutor(count)
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _about(place: Place, questions: Questions) -> Told:
    ask = place.ask
    if ask is None:
        return Told(place.name, unreachable=place.why or "it can't be reached")
    try:
        return Told(
            place.name, machine=ask("machine", {"out": questions.out}), programs=ask("programs", {}), clock=place.clock,
            sees=ask("sees", {"path": questions.token}) if questions.token else None,
            master=ask("resolves", {"host": questions.master}) if questions.master else None, workers=place.workers,
            interface=place.interface or questions.interface,
        )  # fmt: skip
    except ScalelabError as error:  # it was lost meanwhile: the others are told of all the same
        return Told(place.name, unreachable=str(error))


def _logins(places: Sequence[Place]) -> dict[str, dict[str, str | None]]:
    """Whether the first host may log in to the others."""
    if len(places) < 2:
        return {}
    first, others = places[0], [other.name for other in places[1:]]
    found = _ask(first, "ssh", {"hosts": others})
    return {first.name: dict.fromkeys(others, found["error"]) if "error" in found else found}


def between(places: Sequence[Place], questions: Questions, told: dict[str, Told]) -> tuple[dict[str, dict[str, str]], list[Link]]:
    """By host, which others it can't reach and why; and the speed of each pair. Pairs that share no host are measured at once."""
    with together(len(places)) as threads:

        def serve(place: Place) -> Any:
            port = questions.port if place is places[0] else None  # where rank 0 will be
            return _ask(place, "serve", {"range": told[place.name].machine["ports"], "port": port})

        addresses = {
            place.name: reached_by(told[place.name].machine["interfaces"], told[place.name].interface) for place in places
        }
        served = dict(zip((place.name for place in places), threads.map(serve, places), strict=True))
        closed: dict[str, dict[str, str]] = {
            name: {name: found["error"]} if "error" in found else {} for name, found in served.items()
        }
        links: list[Link] = []
        for meetings in rounds(len(places)):
            pairs = [(places[a], places[b]) for a, b in meetings]
            for (a, b), (fault, link) in zip(
                pairs, threads.map(lambda pair: _meet(pair[0], pair[1], served, addresses), pairs), strict=True
            ):
                closed[a.name] |= {b.name: fault} if fault else {}
                links += [link] if link else []
        for meetings in rounds(len(places)):  # the other way: only whether it goes
            back = [(places[b], places[a]) for a, b in meetings]
            for (a, b), found in zip(
                back, threads.map(lambda pair: _reach(pair[0], pair[1], served, addresses), back), strict=True
            ):
                closed[a.name] |= {b.name: fault} if (fault := _fault(found)) else {}
        list(threads.map(lambda place: _ask(place, "stop", {}), places))
    return closed, links


def reached_by(interfaces: dict[str, list[str]], wanted: str | None) -> list[str]:
    """The addresses of a host by which others are to reach it; none where it has no interface that is ``wanted``."""
    listing = {name: tuple(map(ipaddress.ip_address, found)) for name, found in interfaces.items() if name != "lo"}
    if wanted is None:
        return [str(address) for found in listing.values() for address in found]
    try:
        return [chosen(wanted, listing).address]
    except ScalelabError:
        return []


def _meet(a: Place, b: Place, served: dict[str, Any], addresses: dict[str, list[str]]) -> tuple[str | None, Link | None]:
    found = _reach(a, b, served, addresses)
    if "error" in found:
        return _fault(found), None
    open_ports = [port for port in served[b.name]["ports"] if str(port) not in found["closed"]]
    measured = _ask(a, "measure", {"address": found["address"], "port": open_ports[0], "seconds": BANDWIDTH})
    return _fault(found), link(a.name, b.name, measured)


def _reach(a: Place, b: Place, served: dict[str, Any], addresses: dict[str, list[str]]) -> dict[str, Any]:
    there = served[b.name]
    question = {"addresses": addresses[b.name], "ports": there.get("ports", []), "who": there.get("who", ""), "seconds": REACH}
    found: dict[str, Any] = _ask(a, "connect", question)
    return found


def _fault(found: dict[str, Any]) -> str | None:
    if "error" in found:
        return str(found["error"])
    return "; ".join(f"port {port}: {why}" for port, why in found["closed"].items()) or None


def link(source: str, target: str, measured: dict[str, Any]) -> Link:
    """What was measured, as figures."""
    if "error" in measured:
        rate, trip = absent("bytes/s", measured["error"]), absent("s", measured["error"])
    elif not measured["rates"]:
        rate, trip = absent("bytes/s", "no window was whole"), figure(measured["round_trips"], "s")
    else:
        rate, trip = figure(measured["rates"], "bytes/s"), figure(measured["round_trips"], "s")
    return Link(source=source, target=target, bytes_per_second=rate, round_trip_seconds=trip)


def _ask(place: Place, name: str, question: dict[str, Any]) -> Any:
    assert place.ask is not None
    try:
        return place.ask(name, question)
    except ScalelabError as error:  # lost in the middle: a fault of its own among the others'
        return {"error": str(error)}


def rounds(count: int) -> list[list[tuple[int, int]]]:
    """All pairs of ``count`` hosts, in rounds in which none meets two others: the circle method of tournaments."""
    circle: list[int | None] = [*range(count), *([None] if count % 2 else [])]
    found = []
    for _ in range(len(circle) - 1):
        half = len(circle) // 2
        met = zip(circle[:half], reversed(circle[half:]), strict=True)
        found.append([(min(a, b), max(a, b)) for a, b in met if a is not None and b is not None])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return found
