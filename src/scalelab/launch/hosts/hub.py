"""The agents of a command: one a host, started once, kept warm for all its trainings, started again where one was lost."""

from __future__ import annotations

import itertools
import os
import secrets
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from scalelab.errors import ScalelabError
from scalelab.launch.hosts.channel import Message
from scalelab.launch.hosts.connection import Agent, Lost
from scalelab.launch.hosts.pausing import Pausing
from scalelab.launch.hosts.placement import Place
from scalelab.launch.hosts.running import Running
from scalelab.record import text


class Unreachable(ScalelabError):
    """Hosts whose agents could not be reached; ``faults``: why, by host. Nothing was started."""

    def __init__(self, faults: dict[str, str]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{host}: {why}" for host, why in faults.items()) + "; nothing was started")


class Hub:
    """Agents by host. What they say unasked goes to the training that is ``running``."""

    def __init__(self, ssh_args: Sequence[str] = (), say: Callable[[str], None] | None = None) -> None:
        self.ssh_args, self.say = tuple(ssh_args), say or _print
        self.run_id = secrets.token_hex(6)
        self.agents: dict[str, Agent] = {}
        self._pausing = Pausing(lambda: list(self.agents.values()))
        self.numbers = itertools.count(1)
        """of the trainings"""
        self._running: Running | None = None
        self._lock = threading.Lock()
        """held while a message is acted upon: after a training was let go nothing is written into its folder"""

    def start(self, places: Sequence[Place]) -> None:
        """Begin to connect to those that are not, without waiting for it."""
        for place in places:
            agent = self.agents.get(place.host)
            if agent is None or agent.lost is not None:
                if agent is not None:
                    agent.close()
                self.agents[place.host] = Agent(place, self.run_id, self.ssh_args, self._heard, self.say)

    def connected(self, places: Sequence[Place]) -> list[Agent]:
        """The agents of ``places``, in their order. Raises Unreachable naming all that could not be reached."""
        for place in places:
            if place.host in self.agents:
                self.agents[place.host].check()
        self.start(places)
        agents = [self.agents[place.host] for place in places]
        new = [agent for agent in agents if not agent.hello]
        if new:
            with ThreadPoolExecutor(len(new)) as threads:
                try:
                    faults = {agent.place.host: why for agent, why in zip(new, threads.map(_connect, new), strict=True) if why}
                except BaseException:  # interrupted: nobody waits for them any more
                    for agent in new:
                        agent.lose("interrupted")
                    raise
            if faults:
                raise Unreachable(faults)
            for agent in new:
                agent.tell({"do": "warm"})
        return agents

    def run(self, running: Running | None) -> None:
        """From now on this is the training that agents speak of; None: no one."""
        with self._lock:
            self._running = running

    def close(self) -> None:
        """End all agents, and they what they started."""
        with ThreadPoolExecutor(len(self.agents) or 1) as threads:
            list(threads.map(Agent.close, self.agents.values()))
        self.agents.clear()
        self._pausing.close()

    def _heard(self, agent: Agent, message: Message, body: bytes) -> None:
        with self._lock:
            if self._running is not None and message.get("training") == self._running.number:
                self._running.heard(agent, message, body)


def _connect(agent: Agent) -> str | None:
    """Why it can't be reached; None where it can."""
    try:
        agent.connect(os.getcwd())
    except Lost:
        return agent.lost
    except ScalelabError as error:
        return str(error)
    return None


def _print(line: str) -> None:
    print(text.harmless(line), file=sys.stderr, flush=True)
