"""Cutting a model into stages: where it can be, where it should be, and the modules that result.

A cut lies where exactly one tensor passes on, in training and in evaluation, and where no parameter or buffer is used on both sides.
Cutting the ordered children instead is silently wrong for models whose forward is more than a chain (densenet, squeezenet).
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from scalelab.errors import NotApplicable, nearest
from scalelab.models import evaluating
from scalelab.strategies.stages.tracing import PATH, Trace, places, run

Traces = dict[bool, Trace]
"""while training (True) and in evaluation (False)"""
MODES = (True, False)


@dataclass(frozen=True)
class Cut:
    """A place to cut. ``names``: the modules that begin behind it, outermost first; none behind a mere function."""

    names: tuple[str, ...]
    before: dict[bool, int]
    """index of the last computing node before it, by mode"""
    value: dict[bool, fx.Node]
    """the node whose value passes on, by mode"""

    @property
    def name(self) -> str:
        """What to call the place in a record."""
        return self.names[0] if self.names else f"after {self.value[True].name}"


def find(traces: Traces) -> list[Cut]:
    """All places to cut, in order."""
    alive = {mode: places(traces[mode]) for mode in MODES}
    keys = {mode: _keys(traces[mode].computing) for mode in MODES}
    index_of = {key: index for index, key in enumerate(keys[False])}
    key_of = {node: key for mode in MODES for node, key in zip(traces[mode].computing, keys[mode], strict=True)}
    names = _names(traces[True].computing)
    found: list[Cut] = []
    for index, node in alive[True].items():
        other = index_of.get(keys[True][index])
        if other is None or other not in alive[False] or key_of.get(node) != key_of.get(alive[False][other]):
            continue
        if not found or found[-1].before[False] < other:
            found.append(Cut(names.get(index + 1, ()), {True: index, False: other}, {True: node, False: alive[False][other]}))
    return _not_parting_tensors(found, traces)


def _keys(nodes: Iterable[fx.Node]) -> list[tuple[str, str, int]]:
    """What tells a node in the trace of one mode from all others, and is the same in the other's."""
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for node in nodes:
        kind = node.op, getattr(node.target, "__name__", str(node.target))
        keys.append((*kind, seen[kind]))
        seen[kind] += 1
    return keys


def _names(nodes: Sequence[fx.Node]) -> dict[int, tuple[str, ...]]:
    """{index of a node: the modules of which it is the first}, outermost first."""
    seen: set[str] = set()
    found: dict[int, tuple[str, ...]] = {}
    for index, node in enumerate(nodes):
        parts = (str(node.target) if node.op == "call_module" else str(node.meta[PATH])).split(".")
        new = [name for end in range(1, len(parts) + 1) if (name := ".".join(parts[:end])) and name not in seen]
        seen.update(new)
        if new:
            found[index] = tuple(new)
    return found


def _not_parting_tensors(cuts: list[Cut], traces: Traces) -> list[Cut]:
    """Those with no parameter or buffer used on both sides: tied weights, a batch norm that is called twice."""
    first: dict[Tensor, int] = {}
    last: dict[Tensor, int] = {}
    for mode in MODES:
        befores = [cut.before[mode] for cut in cuts]
        for index, node in enumerate(traces[mode].computing):
            segment = bisect.bisect_left(befores, index)
            for tensor in traces[mode].tensors(node):
                first[tensor] = min(segment, first.get(tensor, segment))
                last[tensor] = max(segment, last.get(tensor, segment))
    spans = {(first[t], last[t]) for t in first if last[t] > first[t]}
    return [cut for number, cut in enumerate(cuts) if not any(a <= number < b for a, b in spans)]


def _with_one_tensor(cuts: list[Cut], values: dict[fx.Node, Any], mode: bool) -> list[Cut]:
    """Those behind which a floating-point tensor passes on, and no tuple or number, by an example's ``values``."""
    return [cut for cut in cuts if isinstance(v := values[cut.value[mode]], Tensor) and v.is_floating_point()]


def passing(model: nn.Module, traces: Traces, images: Tensor) -> tuple[list[Cut], dict[bool, Tensor]]:
    """The places where one tensor passes on, of the same shape in both modes; and what the trace makes of ``images``, by mode.

    Neighbours introduce each other in evaluation: a shape that training changes (timm's PatchDropout) would be received wrongly.
    """
    cuts, shapes, outputs = find(traces), list[dict[int, torch.Size]](), dict[bool, Tensor]()
    for mode in MODES:
        with unchanged(model, mode):
            values = example(traces[mode], images)
        cuts = _with_one_tensor(cuts, values, mode)
        shapes.append({id(c): values[c.value[mode]].shape for c in cuts})
        outputs[mode] = values[traces[mode].nodes[-1]]
    return [c for c in cuts if shapes[0][id(c)] == shapes[1][id(c)]], outputs


def example(traced: Trace, images: Tensor) -> dict[fx.Node, Any]:
    """Every node's value for ``images``, without gradients, the output's too."""
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in traced.nodes:
            values[node] = run(node, traced, values, images)
    return values


@contextmanager
def unchanged(model: nn.Module, training: bool) -> Iterator[None]:
    """``model`` in one mode, with always the same random numbers; its buffers are put back."""
    buffers = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[]), evaluating(model):
        torch.manual_seed(0)
        model.train(training)
        yield
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)


def balanced(seconds: Sequence[float], stages: int) -> list[int]:
    """Between which segments to cut, so that the slowest of ``stages`` runs of segments takes least: indices of cuts, ascending.

    The linear partition problem, by dynamic programming. ``seconds`` of the segments between all cuts; there are at least ``stages``.
    """
    sums = [0.0]
    for value in seconds:
        sums.append(sums[-1] + value)
    count = len(seconds)
    best = [sums[:]]  # best[k][n]: the slowest of k + 1 stages made of the first n segments
    begins: list[list[int]] = []
    for k in range(1, stages):
        row, begin = [float("inf")] * (count + 1), [0] * (count + 1)
        for n in range(k + 1, count + 1):
            row[n], begin[n] = min((max(best[-1][m], sums[n] - sums[m]), m) for m in range(k, n))
        best.append(row)
        begins.append(begin)
    chosen, n = [], count
    for begin in reversed(begins):
        n = begin[n]
        chosen.append(n - 1)
    return chosen[::-1]


def at(split: str, cuts: list[Cut], stages: int, model: nn.Module) -> list[int]:
    """The cuts where the modules that ``split`` names begin. Raises NotApplicable, with the names that there are."""
    asked = [name.strip() for name in split.split(",")]
    if len(asked) != stages - 1:
        raise NotApplicable(f"--split {split}: names {len(asked)} beginnings, and {stages} stages have {stages - 1}")
    begins = {name: number for number, cut in enumerate(cuts) for name in cut.names}
    valid = [cut.names[0] for cut in cuts if cut.names]
    listed = ", ".join(valid if len(valid) <= 12 else [*(name for name in valid if "." not in name), "and modules inside"])
    for name in asked:
        if name not in begins:
            known = name in dict(model.named_modules())
            why = "is not where exactly one tensor passes on" if known else f"is no module of the model{nearest(name, begins)}"
            raise NotApplicable(f"--split {split}: '{name}' {why}; a stage can begin at {listed}")
    found = [begins[name] for name in asked]
    if any(b <= a for a, b in pairwise(found)):
        raise NotApplicable(f"--split {split}: name each stage's first module once, in the order in which they are computed")
    return found


class Stage(nn.Module):
    """A run of a model's operations, with the parameters and buffers that they use under the model's own names."""

    graphs: dict[bool, fx.GraphModule]

    def __init__(self, graphs: dict[bool, fx.GraphModule]) -> None:
        super().__init__()
        self.__dict__["graphs"] = graphs  # not registered: the names would double

    def forward(self, x: Tensor) -> Tensor:
        """What passes on, for what came in."""
        out: Tensor = self.graphs[self.training](x)
        return out


def build(model: nn.Module, traces: Traces, cuts: Sequence[Cut]) -> list[Stage]:
    """The stages between ``cuts``, in order. What no operation uses (an extra head) is kept by the last one."""
    stages = []
    for number in range(len(cuts) + 1):
        start, end = cuts[number - 1] if number else None, cuts[number] if number < len(cuts) else None
        graphs, used = {}, dict[str, Any]()
        for mode in MODES:
            graph = _between(traces[mode], start, end, mode)
            values = {
                str(n.target): traces[mode].values[str(n.target)] for n in graph.nodes if n.op in ("call_module", "get_attr")
            }
            graphs[mode] = fx.GraphModule(values, graph)
            used |= values
        stages.append(_holding(Stage(graphs), model, used))
    _keep_the_rest(stages, model)
    return stages


def _between(traced: Trace, start: Cut | None, end: Cut | None, mode: bool) -> fx.Graph:
    """The operations behind ``start`` up to ``end``, as a graph of one input and one output."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    came = start.value[mode] if start else next(node for node in traced.nodes if node.op == "placeholder")
    copies[came] = graph.placeholder("x")

    def copy(node: fx.Node) -> fx.Node:
        if node not in copies:  # a tensor that is fetched: where it is used
            assert node.op == "get_attr", f"{node} would cross the cut"
            copies[node] = graph.node_copy(node)
        return copies[node]

    first = start.before[mode] + 1 if start else 0
    for node in traced.computing[first : end.before[mode] + 1 if end else None]:
        for argument in node.all_input_nodes:
            copy(argument)
        copies[node] = graph.node_copy(node, copy)
    result = end.value[mode] if end else next(node for node in traced.nodes if node.op == "output").args[0]
    graph.output(fx.node.map_arg(result, copy))
    return graph


def _holding(stage: Stage, model: nn.Module, used: dict[str, Any]) -> Stage:
    """``stage`` with the modules and tensors that it uses in their places of the model's tree."""
    for name, value in used.items():
        if isinstance(value, nn.Module):
            _parent(stage, name).add_module(name.rpartition(".")[2], value)
    for name, value in used.items():
        if not isinstance(value, nn.Module):
            _place(stage, model, name)
    return stage


def _keep_the_rest(stages: list[Stage], model: nn.Module) -> None:
    """Parameters and buffers that are in no stage go where their other names are, or to the last."""
    owner = {t: stage for stage in stages for t in (*stage.parameters(), *stage.buffers())}
    placed = {name for stage in stages for name in _tensors(stage)}
    for name, tensor in _tensors(model).items():
        if name not in placed:
            _place(owner.get(tensor, stages[-1]), model, name)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])


def _parent(tree: nn.Module, name: str) -> nn.Module:
    for part in name.split(".")[:-1]:
        if part not in tree._modules:
            tree.add_module(part, nn.Module())
        tree = tree.get_submodule(part)
    return tree


def _place(stage: Stage, model: nn.Module, name: str) -> None:
    """Register the model's parameter or buffer ``name`` in ``stage``, unless it is there; anything else is a constant of the graph."""
    path, _, leaf = name.rpartition(".")
    try:
        source = model.get_submodule(path)
    except AttributeError:  # a constant that the trace made
        return
    parent = _parent(stage, name)
    if source._parameters.get(leaf) is not None and leaf not in parent._parameters:
        parent.register_parameter(leaf, source._parameters[leaf])
    elif source._buffers.get(leaf) is not None and leaf not in parent._buffers:
        parent.register_buffer(leaf, source._buffers[leaf], persistent=leaf not in source._non_persistent_buffers_set)
