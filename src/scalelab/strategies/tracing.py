"""A model as the list of its operations, by torch.fx, and the tensors that each of them uses.

Modules of torch, torchvision and timm stay whole (leaves); containers are opened, and so is a module of the model's own in which more than one
place to cut is found. torch.export would bake in the train mode and, for some models, the batch size.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

PATH = "scalelab_path"
"""key of a node's meta: the qualified name of the innermost module that it belongs to"""
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
COMPUTING = ("call_module", "call_function", "call_method")
INNER = "inner"


class Untraceable(Exception):
    """What in the model torch.fx can't follow, in one line."""


class _Root(nn.Module):
    """Calls the model with images alone, so that the defaults of its other arguments are plain values and no inputs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner(x)


class _Tracer(fx.Tracer):
    def __init__(self, opened: frozenset[nn.Module]) -> None:
        super().__init__()
        self.opened, self.stack = opened, [""]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m not in self.opened and not _is_container(m)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.stack.append(self.path_of_module(m).removeprefix(INNER).removeprefix("."))
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self.stack.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta[PATH] = self.stack[-1]
        return node


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, CONTAINERS) and type(module).forward in {kind.forward for kind in CONTAINERS}


@dataclass(frozen=True)
class Trace:
    """The operations of one mode of a model, in order. ``values`` are the modules and tensors that they name."""

    nodes: tuple[fx.Node, ...]
    values: dict[str, Any]

    @property
    def computing(self) -> tuple[fx.Node, ...]:
        """The nodes that compute: modules, functions, methods."""
        return tuple(node for node in self.nodes if node.op in COMPUTING)

    def tensors(self, node: fx.Node) -> Iterator[Tensor]:
        """Parameters and buffers that a computing node uses, those in its module and those it takes as arguments."""
        if node.op == "call_module":
            yield from self.values[str(node.target)].parameters()
            yield from self.values[str(node.target)].buffers()
        for argument in node.all_input_nodes:
            if argument.op == "get_attr" and isinstance(value := self.values[str(argument.target)], Tensor):
                yield value


def trace(model: nn.Module) -> dict[bool, Trace]:
    """The operations of ``model`` while training (True) and in evaluation (False). Raises Untraceable.

    The model is not changed; modules and tensors are shared with it.
    """
    found: dict[bool, Trace] = {}
    before = {module: module.training for module in model.modules()}
    try:
        opened = frozenset([model, *_worth_opening(model)])
        for training in (True, False):
            model.train(training)
            try:
                found[training] = _trace(model, opened)
            except Untraceable:  # what can be followed alone can't be where it stands
                found[training] = _trace(model, frozenset([model]))
    finally:
        for module, training in before.items():
            module.training = training
    return found


def _trace(model: nn.Module, opened: frozenset[nn.Module]) -> Trace:
    root = _Root(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = _Tracer(opened).trace(root)
    except Exception as error:  # control flow that depends on values, whatever the user's code does with a proxy
        raise Untraceable(" ".join(str(error).split())[:200] or type(error).__name__) from None
    values: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            value: Any = root
            for part in str(node.target).split("."):
                value = getattr(value, part)
            node.target = str(node.target).removeprefix(f"{INNER}.")
            values[node.target] = value
    return Trace(tuple(graph.nodes), values)


def _worth_opening(model: nn.Module) -> list[nn.Module]:
    """The modules inside ``model`` in which at least two places to cut are found, innermost first."""
    chosen: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if child.__module__.startswith("torch.nn.") and not _is_container(child) or not any(True for _ in child.children()):
                continue
            visit(child)
            if not _is_container(child) and _takes_one(child) and _places(child, chosen) >= 2:
                chosen.append(child)

    visit(model)
    return chosen


def _takes_one(module: nn.Module) -> bool:
    """Whether a call with one positional argument is enough."""
    try:
        inspect.signature(module.forward).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def _places(module: nn.Module, opened: list[nn.Module]) -> int:
    try:
        return len(places(_trace(module, frozenset([module, *opened]))))
    except Untraceable:
        return 0


def places(traced: Trace) -> dict[int, fx.Node]:
    """Where exactly one value passes on: {index of a computing node: the node whose value is all that later ones need}.

    The last computing node is left out: nothing would follow. A tensor that later operations share with earlier ones may not be
    parted from them either (tied weights, a batch norm called twice).
    """
    nodes = traced.computing
    order = {node: index for index, node in enumerate(nodes)}
    last = {node: max((order.get(user, len(nodes)) for user in node.users), default=-1) for node in traced.nodes}
    parted = _spans(traced, nodes)
    alive = {node for node in traced.nodes if node.op == "placeholder"}
    found: dict[int, fx.Node] = {}
    for index, node in enumerate(nodes[:-1]):
        alive = {n for n in alive | {node} if last[n] > index}
        if len(alive) == 1 and not any(first <= index < end for first, end in parted):
            found[index] = next(iter(alive))
    return found


def _spans(traced: Trace, nodes: tuple[fx.Node, ...]) -> list[tuple[int, int]]:
    """(first, last) node of each tensor that several nodes use."""
    first: dict[Tensor, int] = {}
    last: dict[Tensor, int] = {}
    for index, node in enumerate(nodes):
        for tensor in traced.tensors(node):
            first.setdefault(tensor, index)
            last[tensor] = index
    return [(first[t], last[t]) for t in first if last[t] > first[t]]


def example_outputs(traced: Trace, images: Tensor) -> dict[fx.Node, Any]:
    """The value of each computing node for ``images``, computed in evaluation mode without gradients."""
    values: dict[fx.Node, Any] = {}
    for node in traced.nodes:
        values[node] = run(node, traced, values, images)
    return {node: values[node] for node in traced.computing}


def run(node: fx.Node, traced: Trace, values: dict[fx.Node, Any], images: Tensor) -> Any:
    """One node's value, from those before it."""
    if node.op == "placeholder":
        return images
    if node.op == "get_attr":
        return traced.values[str(node.target)]
    args = fx.node.map_arg(node.args, values.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
    if node.op == "call_module":
        return traced.values[str(node.target)](*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs) if callable(node.target) else args[0]
