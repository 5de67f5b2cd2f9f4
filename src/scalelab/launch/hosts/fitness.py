"""Asking all hosts at once whether they are fit for a training, before anything starts on any of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec

from scalelab import strategies
from scalelab.errors import ScalelabError
from scalelab.launch.hosts import checks, looking, meeting, pushing
from scalelab.launch.hosts.checks import Fault, Told, Unfit, Wanted
from scalelab.launch.hosts.connection import Agent
from scalelab.launch.hosts.hub import Hub, Unreachable
from scalelab.launch.hosts.interfaces import leading_out
from scalelab.launch.hosts.placement import Place
from scalelab.measure import environment
from scalelab.record.schema import ModelFacts
from scalelab.spec import Spec

PATIENCE = 5.0
"""seconds that a connection to the first host may take"""
PLACE_FLAGS = "--interface, --master-addr, --master-port"


def check(
    hub: Hub, places: Sequence[Place], workers: Sequence[int], spec: Spec, wanted: meeting.Wanted, model: ModelFacts | None
) -> None:
    """Raises Unfit with all that is wrong with any of ``places``, which are to run so many ``workers`` each.

    ``model``: where it is known by now, the hosts' memory is held against it too.
    """
    told = [Told(place, count) for place, count in zip(places, workers, strict=True)]
    held = Wanted(spec, environment.code(), looking.digest(spec), environment.files(spec), held=held_by_one(spec, model))
    why = unreachable(hub, places)
    told = [replace(one, unreachable=why.get(one.place.host)) for one in told]
    with ThreadPoolExecutor(len(told)) as threads:
        told = list(threads.map(lambda one: asked(hub, one, held), told))
        found = checks.faults(told, held)
        lost = {fault.host for fault in found if fault.check in checks.ALONE}
        if model is None and told[0].place.host not in lost:
            found += connections([one for one in told if one.place.host not in lost], hub, wanted, spec, threads)
    if found:
        order = [place.host for place in places]
        raise Unfit(sorted(found, key=lambda fault: order.index(fault.host)), len(places))


def unreachable(hub: Hub, places: Sequence[Place]) -> dict[str, str]:
    """The hosts on which no agent answers, and why."""
    try:
        hub.connected(places)
    except Unreachable as error:
        return error.faults
    return {}


def unfit(why: dict[str, str], hosts: int) -> Unfit:
    """The error for hosts that can't be reached, before anything else can be asked."""
    return Unfit([checks.lost(host, said) for host, said in why.items()], hosts)


def asked(hub: Hub, one: Told, held: Wanted) -> Told:
    """What the host tells of itself, as far as it can be asked."""
    if one.unreachable is not None:
        return one
    agent = hub.agents[one.place.host]
    one = replace(one, versions=agent.hello["versions"], code=agent.hello["code"], clock=agent.clock)
    if one.code != held.code:  # it may understand nothing else
        return one
    spec = msgspec.structs.replace(held.spec, data_dir=one.place.data_dir or held.spec.data_dir)
    try:
        seen = pushing.answer(agent, {"do": "look", "spec": msgspec.to_builtins(spec)})["answer"]
    except ScalelabError as error:
        return replace(one, unreachable=str(error))
    return replace(one, seen=seen)


def connections(told: Sequence[Told], hub: Hub, wanted: meeting.Wanted, spec: Spec, threads: ThreadPoolExecutor) -> list[Fault]:
    """Whether each host has the interface that is wanted, and can connect by it to where the ranks will meet."""
    agents = [hub.agents[one.place.host] for one in told]
    lacking = [fault for found in threads.map(lambda agent: _lacks(agent, wanted, len(agents) > 1), agents) for fault in found]
    without = {fault.host for fault in lacking}
    if agents[0].place.host in without:
        return lacking
    first, *others = [agent for agent in agents if agent.place.host not in without]
    try:
        address = meeting.address(wanted, agents)
        if spec.engine == "horovod" and ":" in address:
            raise ScalelabError(f"{address}, and Horovod meets over IPv4 alone; choose an IPv4 subnet with --interface")
        bound = pushing.answer(first, {"do": "listen", "address": address, "port": spec.master_port})["port"]
    except ScalelabError as error:
        found, _, todo = str(error).partition("; ")
        return [*lacking, Fault(first.place.host, "meeting place", found, todo or f"choose another with {PLACE_FLAGS}")]
    try:
        back = threads.map(lambda agent: _connects(agent, first, wanted, address, bound), others)
        return lacking + [fault for found in back for fault in found]
    finally:
        first.tell({"do": "release", "port": bound})


def _lacks(agent: Agent, wanted: meeting.Wanted, others: bool) -> list[Fault]:
    """Where the host has not the interface that it is to use, or, where there are ``others``, that leads to none of them."""
    if wanted.of(agent) is None:
        return []
    try:
        found = meeting.link(wanted, agent, None)
        if others:
            leading_out(found)
    except ScalelabError as error:
        return [Fault(agent.place.host, "interface", str(error), "say which with interface= in the hostfile, or --interface")]
    return []


def _connects(agent: Agent, first: Agent, wanted: meeting.Wanted, address: str, port: int) -> list[Fault]:
    host = agent.place.host
    try:
        link = meeting.link(wanted, agent, address)
        question: dict[str, Any] = {
            "do": "connect",
            "address": address,
            "port": port,
            "source": link.address,
            "seconds": PATIENCE,
        }
        error = pushing.answer(agent, question)["answer"].get("error")
    except ScalelabError as raised:
        return [Fault(host, "interface", str(raised), "say which with interface= in the hostfile, or --interface")]
    if error is None:
        return []
    todo = f"open the way in the firewall, or choose another with {PLACE_FLAGS}"
    return [Fault(host, "connection", f"to {first.place.host} at {address} port {port}, by {link.name}: {error}", todo)]


def held_by_one(spec: Spec, model: ModelFacts | None) -> int | None:
    """Bytes of a worker's own part of weights and gradients; None where that is not known, or not in the host's memory."""
    if model is None or spec.device == "cuda":
        return None
    _, shard, pipe = strategies.degrees(spec)
    return math.ceil(2 * model.bytes / (shard * pipe))
