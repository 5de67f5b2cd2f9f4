"""What a host can be asked by the doctor, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scalelab.doctor.there import links, machine, programs, ways

ANSWERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "machine": machine.tell, "programs": programs.tell, "sees": ways.sees, "resolves": ways.resolves, "ssh": ways.ssh,
    "serve": links.serve, "connect": links.connect, "measure": links.measure, "stop": links.stop,
}  # fmt: skip
"""each takes a question of plain values, and gives one; what went wrong is a part of it"""


def answer(question: dict[str, Any]) -> Any:
    """{"name": of an answer, and what it takes}."""
    return ANSWERS[question["name"]](question)
