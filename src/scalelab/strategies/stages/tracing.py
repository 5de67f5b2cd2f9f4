"""A model as the list of its operations, by torch.fx, and the tensors that each of them uses.

Modules of torch, torchvision and timm stay whole (leaves); containers are opened, and so is a module of the model's own in which more
than one place to cut is found. torch.export would bake in the train mode and, for some models, the batch size.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

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
    def __init__(self, opened: Collection[nn.Module], closed: Collection[nn.Module]) -> None:
        super().__init__()
        self.opened, self.closed, self.stack = opened, closed, [""]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.closed or (m not in self.opened and not is_container(m))

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


def is_container(module: nn.Module) -> bool:
    """Whether a module only holds others, and its forward is the container's own."""
    own = "forward" in module.__dict__  # set on the instance: recomputation does that
    return not own and isinstance(module, CONTAINERS) and type(module).forward in {kind.forward for kind in CONTAINERS}


def _may_be_opened(module: nn.Module) -> bool:
    """Whether a module is the model's own: no layer of torch's (a batch norm with an activation is one), none with a forward set on it."""
    layer = any(
        kind.__module__.startswith("torch.nn.modules") and kind not in (nn.Module, *CONTAINERS) for kind in type(module).__mro__
    )
    return not layer and "forward" not in module.__dict__ and any(True for _ in module.children())


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


def trace(model: nn.Module, closed: Collection[nn.Module] = ()) -> dict[bool, Trace]:
    """The operations of ``model`` while training (True) and in evaluation (False). Raises Untraceable.

    The modules ``closed`` stay whole. The model is not changed; modules and tensors are shared with it.
    """
    found: dict[bool, Trace] = {}
    before = {module: module.training for module in model.modules()}
    try:
        opened = [model, *_worth_opening(model, closed)]
        for training in (True, False):
            model.train(training)
            try:
                found[training] = _trace(model, opened, closed)
            except Untraceable:  # what can be followed alone can't be where it stands
                found[training] = _trace(model, [model], closed)
    finally:
        for module, training in before.items():
            module.training = training
    return found


def _trace(model: nn.Module, opened: Collection[nn.Module], closed: Collection[nn.Module]) -> Trace:
    root = _Root(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = _Tracer(opened, closed).trace(root)
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


def _worth_opening(model: nn.Module, closed: Collection[nn.Module]) -> list[nn.Module]:
    """The modules inside ``model`` in which at least two places to cut are found, innermost first."""
    chosen: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            if child not in closed and _may_be_opened(child):
                visit(child)
                if not is_container(child) and _takes_one(child) and _places(child, chosen, closed) >= 2:
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


def _places(module: nn.Module, opened: list[nn.Module], closed: Collection[nn.Module]) -> int:
    try:
        return len(places(_trace(module, [module, *opened], closed)))
    except Untraceable:
        return 0


def places(traced: Trace) -> dict[int, fx.Node]:
    """Where exactly one value passes on: {index of a computing node: the node whose value is all that later ones need}.

    The last computing node is left out: nothing would follow.
    """
    nodes = traced.computing
    order = {node: index for index, node in enumerate(nodes)}
    last = {node: max((order.get(user, len(nodes)) for user in node.users), default=-1) for node in traced.nodes}
    alive = {node for node in traced.nodes if node.op == "placeholder"}
    found: dict[int, fx.Node] = {}
    for index, node in enumerate(nodes[:-1]):
        alive = {n for n in alive | {node} if last[n] > index}
        if len(alive) == 1:
            found[index] = next(iter(alive))
    return found


def run(node: fx.Node, traced: Trace, values: dict[fx.Node, Any], images: Tensor) -> Any:
    """One node's value, from those of the nodes before it."""
    if node.op == "placeholder":
        return images
    if node.op == "get_attr":
        return traced.values[str(node.target)]
    args = _filled(node.args, values)
    if node.op == "output":
        return args[0]
    kwargs = _filled(node.kwargs, values)
    if node.op == "call_module":
        return traced.values[str(node.target)](*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target), "a function's node has the function"
    return node.target(*args, **kwargs)


def _filled(argument: Any, values: dict[fx.Node, Any]) -> Any:
    """``argument`` with values in place of nodes, and lists of its own: some modules write into them (hrnet)."""
    if isinstance(argument, fx.Node):
        return values[argument]
    if isinstance(argument, tuple):
        parts = [_filled(part, values) for part in argument]
        return type(argument)(*parts) if hasattr(argument, "_fields") else tuple(parts)
    if isinstance(argument, list):
        return [_filled(part, values) for part in argument]
    if isinstance(argument, dict):
        return {key: _filled(part, values) for key, part in argument.items()}
    if isinstance(argument, slice):
        return slice(*(_filled(part, values) for part in (argument.start, argument.stop, argument.step)))
    return argument
