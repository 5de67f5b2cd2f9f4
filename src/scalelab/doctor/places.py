"""Where the doctor looks: this machine, hosts over ssh by their agents, nodes of Slurm by one srun."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from scalelab.doctor.asking import Ask, Place
from scalelab.doctor.there.answers import ANSWERS
from scalelab.errors import ScalelabError
from scalelab.launch.hosts.connection import Agent, Lost
from scalelab.launch.hosts.placement import Place as Target

PATIENCE = 90.0
"""seconds for one answer of a busy host"""


def here() -> Place:
    """This machine, asked in this process."""
    return Place(socket.gethostname(), lambda name, question: ANSWERS[name](question))


@contextmanager
def over_ssh(targets: Sequence[Target], ssh_args: Sequence[str] = ()) -> Iterator[list[Place]]:
    """Hosts with an agent on each, where one could be started."""
    run_id = secrets.token_hex(6)
    agents = [Agent(target, run_id, ssh_args, lambda *heard: None, lambda line: None) for target in targets]
    try:
        with ThreadPoolExecutor(len(agents)) as threads:
            places = list(threads.map(_place, agents))
        yield places
    finally:
        with ThreadPoolExecutor(len(agents)) as threads:
            list(threads.map(Agent.close, agents))


def _place(agent: Agent) -> Place:
    try:
        agent.connect(os.getcwd())
    except Lost:
        return Place(agent.place.host, None, agent.lost)
    except ScalelabError as error:
        return Place(agent.place.host, None, str(error))
    return Place(agent.place.host, _ask(agent), clock=agent.clock, workers=agent.place.slots, interface=agent.place.interface)


def _ask(agent: Agent) -> Ask:
    def ask(name: str, question: dict[str, Any]) -> Any:
        message = {"do": "call", "module": "scalelab.doctor.there.answers", "question": {**question, "name": name}}
        return agent.request(message, timeout=PATIENCE)["answer"]

    return ask
