"""Finding something out about a spec, in a process of its own, before any worker starts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalelab import spec as specs
from scalelab.errors import NotApplicable, ScalelabError
from scalelab.launch import preloading
from scalelab.launch.failure import describe
from scalelab.launch.launcher import Process
from scalelab.launch.silence import Silence
from scalelab.spec import Spec

if TYPE_CHECKING:
    from scalelab.launch.pool import Pool

DOING = "checking the spec"
POLL = 0.1
"""seconds between two looks at a process"""


class Silent(ScalelabError):
    """What was asked neither answered nor computed for as long as ``--timeout`` allows."""


def ask(
    pool: Pool, target: str, spec: Spec, doing: str = DOING, env: dict[str, str] | None = None, inside: Path | None = None
) -> Any:
    """What ``target`` ("module:function", called with a spec's file and an answer's) answers, as JSON.

    ``doing`` says in the errors what was going on; ``env`` is set in the process besides its environment; ``inside`` is a folder for what
    the two write for each other. Raises ScalelabError, Silent after ``--timeout`` seconds in which the process computed nothing; nothing
    is left behind.
    """
    with tempfile.TemporaryDirectory(prefix="scalelab-", dir=inside) as scratch:
        question, answer = Path(scratch, "spec.yaml"), Path(scratch, "answer.json")
        question.write_text(specs.dump(spec))
        process = pool.start(target, [str(question), str(answer)], env, preload=preloading.of_checks(spec))
        try:
            status = wait(pool, [process], Path(scratch), spec.timeout, doing, " (--timeout)")[0]
        finally:
            pool.end([process])
        if not answer.exists():
            raise ScalelabError(f"{doing} ended with {describe(status)}; its output is above")
        found = json.loads(answer.read_text())
    if isinstance(found, dict) and "error" in found:
        raise (NotApplicable if found["kind"] == NotApplicable.__name__ else ScalelabError)(found["error"])
    return found


def wait(pool: Pool, processes: list[Process], folder: Path, timeout: float, doing: str, flag: str = "") -> list[int]:
    """Until all of ``processes``, which may write to ``folder``, have ended, or one has failed; their statuses so far.

    Raises Silent where they show no sign of life for ``timeout`` seconds: the caller ends them.
    """
    silence = Silence(folder, processes, timeout)
    while any(process.status is None for process in processes) and not any(process.status for process in processes):
        pool.poll(POLL)
        if silence.fell():
            raise Silent(f"{doing}: nothing was computed for {timeout:g} seconds{flag}, so it was ended")
    return [process.status or 0 for process in processes]
