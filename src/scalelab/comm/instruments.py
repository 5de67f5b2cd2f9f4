"""Reading the collectives of a step from outside: their bytes, their time, and the step without them.

Every strategy's collectives pass torch's dispatcher as operators of the namespaces c10d and _c10d_functional, so one dispatch mode sees
DDP's C++ reducer, FSDP2 and ZeroRedundancyOptimizer alike. The instruments are on during probe steps only:
a training step pays nothing for them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scalelab.comm import bare
from scalelab.comm.bare import Call

METHOD = {
    "communication_seconds.exposed": "step time - the same step with local copies in place of collectives, in interleaved pairs "
    "on a snapshot of the training state that is restored bit for bit; the slowest rank's; both steps of a pair run under a dispatch mode",
    "communication_seconds.total": "union of the intervals in which a collective was under way, by torch.profiler, in a few probe steps; "
    "the slowest rank's, time in the backend's queue included",
    "communication_seconds.hidden": "total - exposed",
    "communication_seconds.waited": "of total: the time in which the rank ran no operator of torch (on a GPU: no other kernel) for 0.1 ms "
    "or longer, by the same profiles; of the rank that waits least, because what the others wait longer is for that rank",
    "communication_seconds.bare": bare.METHOD,
    "bytes_sent": "tensor bytes of each collective of one probe step x the bytes that a ring algorithm sends per byte; mean over ranks",
}
HOROVOD = "horovod"
"""namespace under which the strategies of engine horovod make its all-reduce an operator: (value, name) → handle to wait for"""
NAMESPACES = ("c10d", "_c10d_functional", HOROVOD)
NOTHING_SENT = -1
"""in the place of Horovod's handle (0, 1, 2 …): the value is as it was, and there is nothing to wait for"""


def wire_factor(operator: str, backend: str, n: int) -> float:
    """Bytes that each of ``n`` ranks sends, per byte of the largest tensor of the collective.

    Ring algorithms (Patarasuk & Yuan 2009; nccl-tests' PERFORMANCE.md): all-reduce 2(n-1)/n, all-gather and reduce-scatter (n-1)/n,
    broadcast and the like 1/n·(n-1): one copy leaves for each rank but the root, the mean over ranks. Gloo's
    reduce-scatter is an all-reduce (seen in its trace), and is counted as one. What is sent point to point leaves once.
    """
    if operator in ("send", "recv_", "recv_any_source_"):
        return float(operator == "send")  # between two ranks, however large the group
    ring = (n - 1) / n
    if "allreduce" in operator or "all_reduce" in operator:
        return 2 * ring
    if "reduce_scatter" in operator:
        return 2 * ring if backend == "gloo" else ring
    return ring


class CountBytes(TorchDispatchMode):
    """Adds up, in ``sent``, the bytes this rank sends in collectives; ``calls`` are the collectives, in their order."""

    def __init__(self, backend: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.backend, self.sent, self.calls = backend, 0.0, list[Call]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in NAMESPACES:
            name = func.__name__.split(".")[0]
            groups, group = _tensor_groups(args), _group(args)
            largest = max((sum(t.nbytes for t in g) for g in groups), default=0)
            self.sent += largest * wire_factor(name, self.backend, dist.get_world_size() if group is None else group.size())
            self.calls.append(Call(name, tuple((t.numel(), t.dtype, t.device) for g in groups for t in g), group))
        return func(*args, **(kwargs or {}))


class UnknownCollective(RuntimeError):
    """A collective that ``CommunicationOff`` has no local copy for; its sentence is the reason of the absent figure."""


class CommunicationOff(TorchDispatchMode):
    """Replaces each collective by a local copy of equal shape: the same work, nothing on the wire.

    The collective then runs in a group of this rank alone (``alone``), which gives its caller a Work to wait for. All-gathers
    fill every rank's slot with this rank's part; reduce-scatters take this rank's slice. Raises UnknownCollective for other collectives.
    """

    def __init__(self, alone: dist.ProcessGroup) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alone = alone

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace not in NAMESPACES:
            return func(*args, **(kwargs or {}))
        if func.namespace == HOROVOD:
            return NOTHING_SENT
        name = func.__name__.split(".")[0]
        if name not in ("allreduce_", "broadcast_", "_allgather_base_", "_reduce_scatter_base_"):
            raise UnknownCollective(f"communication is not probed: there is no local copy for the collective {name.strip('_')}")
        if name == "allreduce_":
            return func(args[0], self.alone.boxed(), *args[2:])
        if name == "broadcast_":
            return func(args[0], self.alone.boxed(), 0, *args[3:])
        output, source = args[0], args[1]
        if name == "_allgather_base_":
            output.view(-1, source.numel()).copy_(source.view(1, -1).expand(output.numel() // source.numel(), -1))
        else:
            mine = dist.ProcessGroup.unbox(args[2]).rank() * output.numel()
            output.view(-1).copy_(source.view(-1)[mine : mine + output.numel()])
        _, work = torch.ops.c10d.broadcast_([output.new_zeros(1)], self.alone.boxed(), 0, 0)
        return output, work


def _tensor_groups(args: Any) -> list[list[Tensor]]:
    return [[t for t in tree_leaves(a) if isinstance(t, Tensor)] for a in args]


def _group(args: Any) -> dist.ProcessGroup | None:
    """The group of a collective; None: all ranks."""
    for a in args:
        if isinstance(a, torch.ScriptObject) and "ProcessGroup" in str(a._type()):
            return dist.ProcessGroup.unbox(a)
    return None
