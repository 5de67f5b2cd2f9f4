"""Going on with a run: what must stay as it was, and taking up where the newest whole checkpoint is."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scalelab import spec as specs
from scalelab.batch import Derived
from scalelab.comm.world import World, merge_stages
from scalelab.errors import ScalelabError
from scalelab.record import folder as records
from scalelab.record.pointer import newest_step
from scalelab.spec import Spec
from scalelab.strategies.base import Strategy
from scalelab.worker import checkpoint
from scalelab.worker.checkpoint import Progress
from scalelab.worker.handing import handed
from scalelab.worker.plan import Plan

FIXED = (
    "model", "model_args", "weights", "freeze", "optimizer", "data", "image_size", "frames", "resize", "train_limit", "seed",
    "batch_schedule",
)  # fmt: skip
"""what a checkpoint's weights, slots and step count stand for; all else may change"""


def check(folder: Path, spec: Spec, derived: Derived, plan: Plan) -> None:
    """Raises ScalelabError for a resume that changes what the checkpoint stands for, or has nothing left to train."""
    record = records.load(folder)
    before = specs.defaults() | record.spec  # an older record has not all fields
    kept = {**{name: before[name] for name in FIXED}, "batch": record.derived.batch}
    now = {**{name: getattr(spec, name) for name in FIXED}, "batch": derived.batch}
    for name, value in kept.items():
        if now[name] != value:
            flag = name.replace("_", "-")
            raise ScalelabError(
                f"--resume can't change --{flag} from {value!r} to {now[name]!r}: the checkpoint's steps are of the former"
            )
    completed = record.steps if record.status == "completed" else 0  # a checkpoint may be missing, the record's word is enough
    reached = max(newest_step(folder) or 0, completed)
    if reached >= plan.total_steps:
        raise ScalelabError(f"{folder}: has its {reached} steps already; to go on, say a larger total with --epochs or --steps")


def check_model(folder: Path, model: nn.Module) -> None:
    """Raises ScalelabError, before anything starts, when no checkpoint of the run is whole, or it is of another model."""
    state, _ = checkpoint.load(folder, lambda message: None)
    kept, here = state["model"], model.state_dict()
    for name in [*here, *kept]:  # the model's order: a file of tensors keeps none
        there, now = (list(tensors[name].shape) if name in tensors else None for tensors in (kept, here))
        if there != now:
            raise ScalelabError(
                f"{folder}: its checkpoint is of another model: '{name}' is {_told(there)} there and {_told(now)} in the model of now"
            )


def _told(shape: list[int] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"


def take_up(folder: Path, spec: Spec, strategy: Strategy, world: World) -> Progress:
    """Take up the newest whole checkpoint where the spec says to go on; where to begin. A collective: the first rank alone reads it."""
    if spec.resume is None:
        return Progress()
    body = checkpoint.read(folder, lambda message: print(message, file=sys.stderr)) if world.first else None
    state, progress = checkpoint.decode(handed(body, world))
    strategy.load(state)
    for name, buffer in strategy.named_buffers():
        if name in state["own"] and len(state["own"][name]) == world.replicas:
            buffer.copy_(state["own"][name][world.replica])
    return progress


def own_statistics(strategy: Strategy, world: World) -> dict[str, Tensor]:
    """Each replica's own running statistics by name, [replicas, *shape], before they are averaged; whole on the first rank."""
    mine = {name: buffer.detach() for name, buffer in strategy.named_buffers() if buffer.is_floating_point()}
    if not mine:
        return merge_stages({}, world)
    flat = torch.cat([buffer.reshape(-1).double() for buffer in mine.values()])
    flat = flat.cpu() if world.backend == "gloo" else flat  # as ``gather``: some ranks may have no GPU
    table = flat.new_empty(world.replicas, len(flat))
    dist.all_gather_into_tensor(table.view(-1), flat, group=world.across)
    parts = table.split([buffer.numel() for buffer in mine.values()], dim=1)
    named = zip(mine.items(), parts, strict=True)
    return merge_stages({name: part.reshape(world.replicas, *buffer.shape) for (name, buffer), part in named}, world)
