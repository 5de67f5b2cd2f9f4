"""Tensor bytes by what they are for, at the moment of a step at which they are most.

A dispatch mode sees every tensor that an operator takes or gives, and asks all living storages for their size after each: it holds
under DDP's C++ buckets, FSDP2's resized storages, pipelines and checkpointed layers alike, where torch's own trackers each know one.
What a storage is for is often known only later (a gradient is one when autograd hands it over), so storages are kept with their
sizes and told apart at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

CATEGORIES = ("parameters", "gradients", "optimizer", "activations", "other")
MOST_SAVED, AT_UPDATE = "most_activations", "gradients_at_update"
KNOWN = (*CATEGORIES, MOST_SAVED, AT_UPDATE)
"""what ``largest`` tells"""
BUFFER = "buffer"
"""saved for the backward pass too (batch norm's statistics), but no activation: counted as other"""
METHOD = (
    "bytes of all tensor storages alive when they were most, in a probe step on a snapshot that is restored, by what they are for: "
    "parameters (gathered ones too), gradients (unsharded ones and buckets too), optimizer state, activations (saved for the backward "
    "pass), other (inputs, buffers, what is on its way); of the worker with most; what kernels take inside is not in it; "
    "most_activations: when those were most, gradients_at_update: when the optimizer took them, on any worker"
)


@dataclass(eq=False)
class _Life:
    """One storage: what it is for, once that is known."""

    purpose: str = "other"


@dataclass
class Tracker:
    """Follows storages through steps, and keeps those of the moment at which they were most, while ``weighing``."""

    lives: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)
    saved: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)
    total: int = 0
    at_peak: list[tuple[_Life, int]] = field(default_factory=list)
    most_saved: int = 0
    at_update: int = 0
    weighing: bool = False

    def see(self, values: Iterable[Any], purpose: str = "other") -> None:
        """Note the storages of tensors; the first purpose that is said of one stays."""
        for value in values:
            if isinstance(value, Tensor):
                storage = _local(value).untyped_storage()
                life = self.lives.setdefault(storage, _Life())
                if life.purpose == "other":
                    life.purpose = purpose

    def save(self, value: Tensor) -> None:
        """Note a tensor that autograd keeps for the backward pass."""
        self.see([value], "activations")
        storage = value.untyped_storage()
        if self.lives[storage].purpose == "activations" and storage not in self.saved:
            self.saved[storage] = True
            self.most_saved = max(self.most_saved, sum(one.nbytes() for one in list(self.saved)))

    def now(self, purpose: str) -> int:
        """Bytes of all living storages of this purpose."""
        return sum(storage.nbytes() for storage, life in list(self.lives.items()) if life.purpose == purpose)

    def weigh(self) -> None:
        """Look whether this moment is the peak."""
        found = [(life, storage.nbytes()) for storage, life in list(self.lives.items())]
        total = sum(size for _, size in found)
        if total > self.total:
            self.total, self.at_peak = total, found

    def by_category(self) -> dict[str, int]:
        """Bytes at the peak; of the activations at theirs; of the gradients when the optimizer takes them."""
        found = dict.fromkeys(CATEGORIES, 0)
        for life, size in self.at_peak:
            found["other" if life.purpose == BUFFER else life.purpose] += size
        return {**found, MOST_SAVED: self.most_saved, AT_UPDATE: self.at_update}


class _Watch(TorchDispatchMode):
    def __init__(self, tracker: Tracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tracker = tracker

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it calls again with what this rank holds
        result = func(*args, **(kwargs or {}))
        self.tracker.see(tree_leaves((args, kwargs, result)))
        if self.tracker.weighing:
            self.tracker.weigh()
        return result


def largest(module: nn.Module, optimizer: Optimizer, step: Callable[[], Any]) -> dict[str, int]:
    """Bytes by category at the peak of ``step``, which is called twice: buckets that outlive a step are known in the second.

    ``optimizer`` is the one that holds this rank's state. The caller restores what the steps change.
    """
    tracker = Tracker()
    tracker.see(module.parameters(), "parameters")
    tracker.see(module.buffers(), BUFFER)
    with _labels(tracker, module, optimizer), _Watch(tracker):
        for tracker.weighing in (False, True):
            tracker.most_saved = 0
            step()
            _see_state(tracker, optimizer)
    return tracker.by_category()


@contextmanager
def _labels(tracker: Tracker, module: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    """Hooks that tell parameters (FSDP's unsharded ones too), gradients, state and activations."""
    hooked: set[int] = set()

    def pack(value: Tensor) -> Tensor:
        tracker.save(value)
        return value

    with ExitStack() as hooks:

        def graded(parameter: Tensor) -> None:
            tracker.see([parameter.grad], "gradients")

        def entered(inner: nn.Module, args: Any) -> None:
            for parameter in inner.parameters(recurse=inner is module):
                tracker.see([parameter], "parameters")
                if (
                    parameter.requires_grad
                    and parameter.is_leaf
                    and not isinstance(parameter, DTensor)
                    and id(parameter) not in hooked
                ):
                    hooked.add(id(parameter))
                    hooks.callback(parameter.register_post_accumulate_grad_hook(graded).remove)

        def updating(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            tracker.see([p.grad for p in module.parameters()], "gradients")
            _see_state(tracker, optimizer)
            tracker.at_update = tracker.now("gradients")

        for inner in module.modules():
            hooks.callback(inner.register_forward_pre_hook(entered).remove)
        hooks.callback(optimizer.register_step_pre_hook(updating).remove)
        hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value))
        yield


def _see_state(tracker: Tracker, optimizer: Optimizer) -> None:
    """The optimizer's tensors, and masters that are no parameters of the model."""
    for slots in optimizer.state.values():
        tracker.see(slots.values(), "optimizer")
    for group in optimizer.param_groups:
        tracker.see(group["params"], "optimizer")
        tracker.see([p.grad for p in group["params"]], "gradients")


def _local(value: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    if not isinstance(value, DTensor):
        return value
    with torch.no_grad():  # else it would be a step of autograd's graph
        return value.to_local()
