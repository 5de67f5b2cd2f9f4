"""A process that is asked one thing before any worker starts: its answer, or what is wrong, as JSON in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from scalelab.errors import ScalelabError


def answering(answer_file: str, find_out: Callable[[], Any]) -> int:
    """Write what ``find_out`` gives, or the {"error", "kind": its class} of a ScalelabError; the exit status."""
    try:
        answer = find_out()
    except ScalelabError as error:
        Path(answer_file).write_text(json.dumps({"error": str(error), "kind": type(error).__name__}))
        return error.exit_status
    Path(answer_file).write_bytes(msgspec.json.encode(answer))
    return 0
