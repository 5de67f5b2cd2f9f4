"""What is found out in a process of its own before any worker starts: does the spec work, and for what data and model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import torch

from scalelab import spec as specs
from scalelab import strategies
from scalelab.batch import derive
from scalelab.errors import ScalelabError
from scalelab.measure.environment import usable_cores
from scalelab.worker import job


def prepare(spec_file: str, answer_file: str) -> int:
    """Write {"model", "data", "plan", "devices": this host's GPUs} or {"error", "kind": its class} as JSON to ``answer_file``."""
    try:
        spec = specs.load(Path(spec_file))
        derived = derive(spec, strategies.degrees(spec), usable_cores())
        model, data, plan = job.prepare(spec, derived, lambda message: print(message, file=sys.stderr, flush=True))
    except ScalelabError as error:
        Path(answer_file).write_text(json.dumps({"error": str(error), "kind": type(error).__name__}))
        return error.exit_status
    answer = {
        "model": msgspec.to_builtins(model),
        "data": msgspec.to_builtins(data),
        "plan": vars(plan),
        "devices": torch.cuda.device_count(),
    }
    Path(answer_file).write_text(json.dumps(answer))
    return 0
