"""What each rank runs in the test of memory: a step, and one under watch; no probes of communication, which take six more."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from scalelab import spec as specs
from scalelab import strategies
from scalelab.batch import derive
from scalelab.comm.world import join, leave
from scalelab.measure import memory
from scalelab.worker import job
from scalelab.worker.loop import endless
from scalelab.worker.probe import held


def rank(spec_file: str, answer: str) -> int:
    """Write {"held", "tensors", "resident": bytes above the start} of this rank to ``answer``-RANK.json."""
    spec = specs.load(Path(spec_file))
    derived = derive(spec, strategies.degrees(spec), 2)
    torch.set_num_threads(1)
    mine = job.build(spec, derived, world := join(spec, derived))
    batches = endless(mine, 0, 1)
    mine.strategy.step(next(batches))
    resident = (memory.peak(world.device) or 0) - mine.baseline
    tensors = held(mine.strategy, batches)
    found = {"held": mine.strategy.memory(), "tensors": tensors, "resident": resident}
    Path(f"{answer}-{world.rank}.json").write_text(json.dumps(found))
    leave()
    return 0
