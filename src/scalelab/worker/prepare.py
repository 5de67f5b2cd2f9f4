"""What is found out in a process of its own before any worker starts: does the spec work, and for what data and model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from scalelab import spec as specs
from scalelab import strategies
from scalelab.batch import derive
from scalelab.limits import local_workers
from scalelab.measure.environment import usable_cores
from scalelab.worker import job
from scalelab.worker.asked import answering


def prepare(spec_file: str, answer_file: str) -> int:
    """Write {"model", "data", "plan", "devices": this host's GPUs} or {"error", "kind": its class} as JSON to ``answer_file``."""

    def found() -> dict[str, Any]:
        spec = specs.load(Path(spec_file))
        derived = derive(spec, strategies.degrees(spec), usable_cores(), local_workers(spec.workers))
        model, data, plan = job.prepare(spec, derived, lambda message: print(message, file=sys.stderr, flush=True))
        return {"model": model, "data": data, "plan": plan.told, "devices": torch.cuda.device_count()}

    return answering(answer_file, found)
