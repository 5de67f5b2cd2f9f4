"""The launcher of trainings over ssh."""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from scalelab import strategies
from scalelab.batch import Derived
from scalelab.errors import RunError, ScalelabError
from scalelab.launch import preloading
from scalelab.launch.ceiling import Occupied
from scalelab.launch.hosts import connection, fitness, meeting, pushing
from scalelab.launch.hosts.channel import SILENT
from scalelab.launch.hosts.connection import Agent
from scalelab.launch.hosts.copying import Copy
from scalelab.launch.hosts.hub import Hub, Unreachable
from scalelab.launch.hosts.placement import Place, shares, spread
from scalelab.launch.hosts.running import Part, Running
from scalelab.launch.launcher import Command, Launcher, Meeting, Process, Pulse
from scalelab.measure.environment import STARTED
from scalelab.measure.interfaces import INTERFACES
from scalelab.record.schema import Ceiling, Host, ModelFacts
from scalelab.spec import Spec


class Remote(Launcher):
    """Ranks on the hosts of ``places``, in their order. Use as a context manager.

    ``master_address``: where rank 0 listens, on the first host; ``interface``: of all hosts that have none of their own.
    ``say`` gets each line that ranks write, as ``host/rank | line``. ``hub``: the connections, where another launcher has them.
    """

    def __init__(
        self,
        places: Sequence[Place],
        ssh_args: Sequence[str] = (),
        master_address: str | None = None,
        interface: str | None = None,
        say: Callable[[str], None] | None = None,
        hub: Hub | None = None,
    ) -> None:
        self._places, self._wanted = tuple(places), meeting.Wanted(master_address, interface)
        self._owns, self.hub = hub is None, hub or Hub(ssh_args, say)
        self._running: Running | None = None
        self._links: list[str] = []
        """of each host that is used, the interface that its ranks speak over"""
        self.slots = sum(place.slots for place in places)

    @property
    def agents(self) -> list[Agent]:
        """The agents of all places, connected. Raises Unfit."""
        try:
            return self.hub.connected(self._places)
        except Unreachable as error:
            raise fitness.unfit(error.faults, len(self._places)) from None

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """The hosts, with their slots."""
        return tuple((place.host, place.slots) for place in self._places)

    def part(self, hosts: Sequence[str]) -> Launcher:
        """The same connections, on some of the hosts."""
        if not hosts:
            return self
        known = {place.host: place for place in self._places}
        if missing := [host for host in hosts if host not in known]:
            raise ScalelabError(f"{', '.join(missing)}: not among the hosts: {', '.join(known)}")
        return Remote([known[host] for host in hosts], (), self._wanted.address, self._wanted.interface, hub=self.hub)

    @property
    def cores(self) -> int:
        """Of the first host."""
        return int(self.agents[0].hello["host"]["cores"])

    def workers_of(self, spec: Spec) -> list[int]:
        """The hosts filled in their order; those that get none are left out."""
        return [count for count in spread(self._places, spec.workers) if count]

    def used(self, spec: Spec) -> list[tuple[Agent, range]]:
        """The agents that the spec's workers run on, with their ranks."""
        counts = self.workers_of(spec)
        ends = list(itertools.accumulate(counts))
        return [(agent, range(end - n, end)) for agent, end, n in zip(self.agents, ends, counts, strict=False)]

    def hosts(self, spec: Spec) -> list[Host]:
        """As their agents told of them, under the names that the user gave."""
        return [
            msgspec.structs.replace(msgspec.convert(agent.hello["host"], Host), name=agent.place.host, workers=len(ranks))
            for agent, ranks in self.used(spec)
        ]

    def warm(self) -> None:
        """Begin to connect to all hosts."""
        self.hub.start(self._places)

    def check(self, spec: Spec, model: ModelFacts | None = None) -> None:
        """All that is wrong with any of the hosts that the spec's workers run on, at once."""
        counts = self.workers_of(spec)
        fitness.check(self.hub, self._places[: len(counts)], counts, spec, self._wanted, model)

    def crowded(self, spec: Spec) -> bool:
        """Whether a host has more threads that compute than cores, by what its agent told."""
        if spec.device == "cuda":
            return False
        return any(len(ranks) * threads(spec, agent, len(ranks)) > cores_of(agent) for agent, ranks in self.used(spec))

    def shares(self, spec: Spec) -> str | None:
        """What follows from the hosts' ``share=``, where one of them has it."""
        return shares(self._places, self.workers_of(spec), strategies.degrees(spec)[2])

    def ask(self, target: str, spec: Spec, doing: str = "checking the spec") -> Any:
        """What ``target`` answers on the first host."""
        agent, ranks = self.used(spec)[0]
        spec = pushing.for_host(agent, spec)
        env = {"LOCAL_WORLD_SIZE": str(len(ranks))}
        question = {"do": "ask", "target": target, "doing": doing, "env": env}
        return pushing.answer(agent, question, msgspec.json.encode(spec))["answer"]

    def occupied(self, spec: Spec, derived: Derived) -> list[Occupied]:
        """Each host, with its own workers and the threads that its cores give them."""
        return [
            Occupied(len(ranks), threads(spec, agent, len(ranks)), spec.device, spec.precision, agent.place.host)
            for agent, ranks in self.used(spec)
        ]

    def ceilings(self, wanted: Sequence[Occupied]) -> Mapping[Occupied, Ceiling]:
        """By the agents, on all hosts at once; of one host one after the other."""
        agents = {agent.place.host: agent for agent in self.agents}
        asked = [(one, agents[one.host]) for one in wanted if one.host is not None]
        posted = [(one, agent, agent.post({"do": "ceiling", "occupied": msgspec.to_builtins(one)})) for one, agent in asked]
        found = {}
        for one, agent, answer in posted:
            with contextlib.suppress(ScalelabError):
                ceiling = msgspec.convert(pushing.until(agent, answer)["ceiling"], Ceiling)
                found[one] = msgspec.structs.replace(ceiling, host=agent.place.host)
        return found

    @contextmanager
    def reserve(self, spec: Spec) -> Iterator[Meeting]:
        """A socket that listens on the first host, held by its agent until rank 0 has it."""
        used = [agent for agent, _ in self.used(spec)]
        address = meeting.address(self._wanted, used)
        port = pushing.answer(used[0], {"do": "listen", "address": address, "port": spec.master_port})["port"]
        try:
            self._links = [meeting.link(self._wanted, agent, address).name for agent in used]
            yield Meeting(address, port)
        finally:
            used[0].tell({"do": "release", "port": port})

    def variables(self, spec: Spec, meeting: Meeting, rank: int, node: int, ranks: range) -> dict[str, str]:
        """torchrun's variables of a rank, and the interface, which is the user's where these name it by a variable of their own."""
        own = {
            "RANK": rank, "LOCAL_RANK": rank - ranks.start, "WORLD_SIZE": spec.workers, "LOCAL_WORLD_SIZE": len(ranks),
            "NODE_RANK": node, "GROUP_RANK": node, "MASTER_ADDR": meeting.address, "MASTER_PORT": meeting.port or "FREE",
            "OMP_NUM_THREADS": threads(spec, self.hub.agents[self._places[node].host], len(ranks)),
        }  # fmt: skip
        place = self._places[node]
        links = {} if self._wanted.interface or place.interface else {n: v for n, v in place.env.items() if n in INTERFACES}
        return {**{name: str(value) for name, value in own.items()}, **dict.fromkeys(INTERFACES, self._links[node]), **links}

    def commands(self, spec: Spec, derived: Derived) -> list[Command]:
        """What starts each host's agent, from here; then a command for each rank, as whoever starts them by hand would."""
        used = self.used(spec)
        address = meeting.address(self._wanted, [agent for agent, _ in used])
        self._links = [meeting.link(self._wanted, agent, address).name for agent, _ in used]
        here, place = socket.gethostname(), Meeting(address, spec.master_port or 0)
        agents = [Command(here, tuple(connection.command(agent.place, "RUN_ID", self.hub.ssh_args)), {}) for agent, _ in used]
        return agents + [
            Command(
                agent.place.host,
                (agent.place.python or sys.executable, "-m", "scalelab.worker", "RUN/spec.yaml"),
                {**agent.place.env, **self.variables(spec, place, rank, node, ranks)},
            )
            for node, (agent, ranks) in enumerate(used)
            for rank in ranks
        ]

    def start_ranks(self, folder: Path, spec: Spec, derived: Derived, meeting: Meeting, processes: list[Process]) -> None:
        """Send each host what its ranks need, then start them all at once."""
        used = self.used(spec)
        parts = [Part(agent, ranks, Copy(folder, agent.place.host, agent.clock[0])) for agent, ranks in used]
        for part in parts:
            part.processes = {rank: Process(rank, host=part.agent.place.host) for rank in part.ranks}
            processes += part.processes.values()
        self._running = running = Running(next(self.hub.numbers), folder, parts, self.hub.say)
        self.hub.run(running)
        preload = preloading.of_ranks(spec)
        try:
            given = [pushing.push(part.agent, part.copy, folder, spec, first=node == 0) for node, part in enumerate(parts)]
            begun, started = time.time(), []
            for node, part in enumerate(parts):
                envs = {rank: self.variables(spec, meeting, rank, node, part.ranks) for rank in part.ranks}
                for env in envs.values():
                    env[STARTED] = str(begun + part.copy.ahead)
                port = meeting.port if node == 0 else None
                message = {"do": "start", "run": folder.name, "training": running.number, "ranks": envs, "given": given[node]}
                part.drained = False
                started.append((part, part.agent.post({**message, "preload": preload, "port": port})))
            if faults := [fault for part, future in started if (fault := part.refused(future)) is not None]:
                raise RunError(faults[0])
        except RunError:
            raise
        except ScalelabError as error:
            raise RunError(f"{error}") from None

    def poll(self, timeout: float) -> None:
        """Take in what the agents tell."""
        if self._running is None:
            time.sleep(timeout)
        else:
            self._running.poll(timeout)

    def stacks(self, processes: list[Process]) -> None:
        """Each agent asks its own ranks."""
        self._each({"do": "stacks"})

    def end(self, processes: list[Process], grace: float = 1.0) -> None:
        """End them on all hosts, and wait until all that they wrote is here; a host that is silent meanwhile is given up."""
        running = self._running
        if running is None:
            return
        self._each({"do": "end", "grace": grace})
        began = time.monotonic()
        while not running.over():
            with contextlib.suppress(RunError):
                running.poll(0.05)
            for part in running.parts:
                quiet = time.monotonic() - max(part.heard, began) if part.agent.silent else 0.0  # else it is heard at this moment
                if not part.drained and quiet > grace + SILENT:
                    part.agent.lose(f"its ranks did not end within {grace + SILENT:g} seconds")
        self.hub.run(None)
        self._running = None
        for part in running.parts:
            pushing.forget(part.agent, running.folder)

    def _each(self, message: dict[str, Any]) -> None:
        """Tell it to all hosts on which a rank still runs."""
        for part in self._running.parts if self._running else []:
            if part.living and not part.drained and part.agent.lost is None:
                assert self._running is not None
                part.agent.tell({**message, "training": self._running.number})

    def pulse(self, processes: list[Process]) -> Pulse:
        """Agents tell it: each looks at the processor time of its own ranks."""
        running, seen = self._running, 0

        def beat() -> bool:
            nonlocal seen
            now = running.beats if running is not None else 0
            grown, seen = now > seen, now
            return grown

        return beat

    def close(self) -> None:
        """End the agents, and they their ranks."""
        if self._owns:
            self.hub.close()


def cores_of(agent: Agent) -> int:
    """Cores of a host that its ranks may use."""
    return int(agent.hello["host"]["cores"])


def threads(spec: Spec, agent: Agent, workers: int) -> int:
    """Of each of so many workers on a host, as they find it themselves."""
    return spec.threads_per_worker or max(1, cores_of(agent) // workers)
