"""Which modules of a model are treated as one: gathered together, or computed again together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint


def blocks(model: nn.Module, share: float = 0.05) -> list[nn.Module]:
    """The modules gathered as one: the outermost that hold at most a quarter of the parameters and at least ``share``.

    Smaller ones stay with their parent: each gather costs a latency. A module that is too large is opened; leaves are never, nor is torch's
    attention, which takes its projection's weight without calling it. One that shares a parameter with a module outside (tied weights)
    stays with the root, which holds them all.
    """
    total = sum(p.numel() for p in model.parameters()) or 1
    owners = Counter(p for module in model.modules() for p in module.parameters(recurse=False))
    chosen: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            part = sum(p.numel() for p in child.parameters()) / total
            if part < share:
                continue
            if part > 0.25 and not isinstance(child, nn.MultiheadAttention) and any(True for _ in child.children()):
                visit(child)
                continue
            inside = Counter(p for inner in child.modules() for p in inner.parameters(recurse=False))
            tied = any(owners[p] > count for p, count in inside.items())
            if not tied and not isinstance(child, nn.ModuleList | nn.ModuleDict):  # those have no forward to hook
                chosen.append(child)

    visit(model)
    return chosen


def reached_around(model: nn.Module, chosen: Sequence[nn.Module], images: Tensor) -> str | None:
    """The name of a module of ``chosen`` whose parameters a forward uses without calling it (``F.linear(x, self.b.weight)``); None: none.

    Nobody would gather them then. The model's statistics change: give one that nobody trains.
    """
    owners = {id(p): module for module in chosen for p in module.parameters()}
    names = {module: name for name, module in model.named_modules()}
    running: list[nn.Module] = []
    found: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            used = {owners[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in owners}
            found.extend(names[module] for module in used if module not in running)
            return func(*args, **(kwargs or {}))

    hooks = [m.register_forward_pre_hook(lambda module, args: running.append(module)) for m in chosen]
    hooks += [m.register_forward_hook(lambda module, args, out: running.remove(module)) for m in chosen]
    try:
        with Watch():  # type: ignore[no-untyped-call]
            model.train()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def layers(model: nn.Module) -> list[nn.Module]:
    """The outermost modules that are more than a container: a residual block, a transformer's layer, a Sequential of plain layers."""
    found: list[nn.Module] = []
    for child in model.children():
        if any(True for _ in child.children()):
            opened = isinstance(child, nn.Sequential | nn.ModuleList) and any(any(True for _ in c.children()) for c in child)
            found += layers(child) if opened else [] if isinstance(child, nn.ModuleList | nn.ModuleDict) else [child]
    return found


def recompute(model: nn.Module) -> nn.Module:
    """Keep no activations inside the layers of ``model``: their backward computes them again (Chen et al. 2016). In place.

    The second forward leaves batch norm's running statistics alone, which the first one has brought up to date; dropout repeats
    its random numbers.
    """
    found = layers(model)
    for layer in found:
        layer.forward = _again(layer.forward, layer)
    if not found and isinstance(model, nn.Sequential):  # a flat one: in about √n groups
        size = max(1, round(len(model) ** 0.5))
        groups = [model[start : start + size] for start in range(0, len(model), size)]
        model.forward = partial(_chain, [_again(group.forward, group) for group in groups])  # type: ignore[method-assign]
    return model


def recomputable(model: nn.Module) -> bool:
    """Whether ``recompute`` finds anything to compute again."""
    return isinstance(model, nn.Sequential) or bool(layers(model))


def _again(forward: Callable[[Tensor], Tensor], layer: nn.Module) -> Callable[[Tensor], Tensor]:
    return partial(checkpoint, forward, use_reentrant=False, context_fn=partial(_contexts, layer))


def _chain(functions: list[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    for function in functions:
        x = function(x)
    return x


def _contexts(layer: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _frozen_statistics(layer)


@contextmanager
def _frozen_statistics(layer: nn.Module) -> Iterator[None]:
    """The same operations, so that autograd saves the same tensors, but at a momentum of 0."""
    norms = [m for m in layer.modules() if isinstance(m, _BatchNorm)]
    kept = [(norm, norm.momentum, None if (n := norm.num_batches_tracked) is None else n.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
