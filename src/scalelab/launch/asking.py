"""Finding something out about a spec, in a process of its own, before any worker starts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from scalelab import spec as specs
from scalelab.errors import NotApplicable, ScalelabError
from scalelab.launch.failure import describe
from scalelab.launch.pool import Pool
from scalelab.spec import Spec


def ask(pool: Pool, target: str, spec: Spec) -> Any:
    """What ``target`` ("module:function", called with a spec's file and an answer's) answers, as JSON.

    Raises ScalelabError; nothing is left behind.
    """
    with tempfile.TemporaryDirectory(prefix="scalelab-") as scratch:
        question, answer = Path(scratch, "spec.yaml"), Path(scratch, "answer.json")
        question.write_text(specs.dump(spec))
        status = pool.wait(pool.start(target, [str(question), str(answer)]))
        if not answer.exists():
            raise ScalelabError(f"checking the spec ended with {describe(status)}; its output is above")
        found = json.loads(answer.read_text())
    if isinstance(found, dict) and "error" in found:
        raise (NotApplicable if found["kind"] == NotApplicable.__name__ else ScalelabError)(found["error"])
    return found
