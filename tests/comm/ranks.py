"""What each rank runs in the tests of this folder: assertions over collectives. Called as (store, rank, size)."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from scalelab.comm import averaging, bare, batch_norm
from scalelab.comm.instruments import CommunicationOff, CountBytes, UnknownCollective
from scalelab.comm.profiled import collective_seconds
from tests.joined import joined

NORMS: list[Callable[[], tuple[nn.Module, tuple[int, ...]]]] = [
    lambda: (nn.BatchNorm2d(3), (3, 4, 4)),
    lambda: (nn.BatchNorm1d(5), (5,)),
    lambda: (nn.BatchNorm3d(2), (2, 2, 3, 2)),
    lambda: (nn.BatchNorm2d(3, momentum=None), (3, 4, 4)),
    lambda: (nn.BatchNorm2d(3, affine=False), (3, 4, 4)),
    lambda: (nn.BatchNorm2d(3, track_running_stats=False), (3, 4, 4)),
    lambda: (BatchNormAct2d(3), (3, 4, 4)),
]


@joined
def sync_batch_norm_is_exact(rank: int, size: int) -> None:
    """Uneven shares on the ranks give what one process gives on the whole batch: outputs, gradients, running statistics."""
    for make in NORMS:
        torch.manual_seed(0)
        serial, shape = make()
        spread, _ = make()
        for module in (serial, spread):
            module.double().train()
            for p in module.parameters():
                nn.init.uniform_(p, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
        batch_norm.synchronise(spread, dist.new_group(list(range(size))))
        counts = [3 + 2 * r for r in range(size)]
        for _ in range(2):
            whole = (torch.randn(sum(counts), *shape, dtype=torch.float64) * 3 + 100).requires_grad_()
            weights = torch.randn_like(whole)
            mine = whole.detach().split(counts)[rank].clone().requires_grad_()
            out, expected = spread(mine), serial(whole)
            (out * weights.split(counts)[rank]).sum().backward()
            (expected * weights).sum().backward()
            assert whole.grad is not None
            close(out, expected.split(counts)[rank])
            close(mine.grad, whole.grad.split(counts)[rank])
        for p, q in zip(spread.parameters(), serial.parameters(), strict=True):
            dist.all_reduce(p.grad)
            close(p.grad, q.grad)
        for b, c in zip(spread.buffers(), serial.buffers(), strict=True):
            close(b.double(), c.double())
        close(spread.eval()(mine), serial.eval()(mine))


def close(a: Tensor | None, b: Tensor | None) -> None:
    assert a is not None
    assert b is not None
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@joined
def buffers_are_averaged(rank: int, size: int) -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(3))
    for buffer in model.buffers():
        buffer.fill_(rank)
    batch_norm.average_buffers(model)
    for buffer in model.buffers():
        assert buffer.unique().tolist() == [(size - 1) / 2 if buffer.is_floating_point() else rank]


@joined
def gradients_are_averaged(rank: int, size: int) -> None:
    """Two types of number, several buckets; one that only the first rank has, one that none has, one that lies channels-last."""
    averaging.CHUNK = 100  # several buckets
    shapes, kinds = (
        [(5, 3), (7,), (4,), (2, 3, 2, 2), (40,)],
        [torch.float64, torch.float64, torch.float64, torch.float32, torch.float32],
    )
    parameters = [nn.Parameter(torch.zeros(s, dtype=d)) for s, d in zip(shapes, kinds, strict=True)]
    frozen = nn.Parameter(torch.zeros(3), requires_grad=False)

    def gradient(place: int, of: int) -> Tensor:
        drawn = torch.randn(shapes[place], generator=torch.Generator().manual_seed(10 * place + of), dtype=kinds[place])
        return drawn.to(memory_format=torch.channels_last) if drawn.dim() == 4 else drawn

    lacking = {1: set(range(1, size)), 2: set(range(size))}
    for place, parameter in enumerate(parameters):
        if rank not in lacking.get(place, ()):
            parameter.grad = gradient(place, rank)
    averaging.average_gradients([*parameters, frozen], None)
    for place, parameter in enumerate(parameters):
        there = [gradient(place, of) for of in range(size) if of not in lacking.get(place, ())]
        if there:
            torch.testing.assert_close(parameter.grad, torch.stack(there).sum(0) / size)
        else:
            assert parameter.grad is None
    assert frozen.grad is None


@joined
def bytes_are_counted(rank: int, size: int) -> None:
    ring, sent = (size - 1) / size, 4 * 1200
    part = torch.ones(1200 // size)
    whole = torch.ones(1200)
    for collective, factor in (
        (lambda: dist.all_reduce(whole), 2 * ring),
        (lambda: dist.all_gather_into_tensor(whole, part), ring),
        (lambda: dist.broadcast(whole, 0), ring),
        (lambda: dist.reduce_scatter_tensor(part, whole), 2 * ring),
    ):
        with CountBytes("gloo") as counted:
            collective()
            whole.sum()
        assert counted.sent == sent * factor, counted.calls
        assert len(counted.calls) == 1


@joined
def communication_off_copies_locally(rank: int, size: int) -> None:
    alone = [dist.new_group([r]) for r in range(size)][rank]
    mine = torch.full((4,), float(rank))
    table, slice_ = torch.empty(4 * size), torch.empty(2)
    blocks = torch.arange(2.0 * size)
    with CommunicationOff(alone):
        dist.all_reduce(mine)
        assert mine.tolist() == [rank] * 4
        dist.broadcast(mine, 0)
        assert mine.tolist() == [rank] * 4
        dist.all_gather_into_tensor(table, mine)
        assert table.tolist() == [rank] * (4 * size)
        work = dist.reduce_scatter_tensor(slice_, blocks, async_op=True)
        assert work is not None
        work.wait()
        assert slice_.tolist() == [2.0 * rank, 2.0 * rank + 1]
        if rank == 0:  # the others never call it: nothing may wait for them
            dist.all_reduce(mine)
    dist.all_reduce(mine)  # and afterwards they meet again
    assert mine.tolist() == [sum(range(size))] * 4


@joined
def communication_off_refuses_what_it_does_not_know(rank: int, size: int) -> None:
    alone = [dist.new_group([r]) for r in range(size)][rank]
    with pytest.raises(UnknownCollective, match=r"no local copy for the collective allgather$"), CommunicationOff(alone):
        dist.all_gather([torch.empty(1) for _ in range(size)], torch.ones(1))


@joined
def collectives_are_timed(rank: int, size: int) -> None:
    large = torch.ones(1 << 20)
    talking = collective_seconds(lambda: dist.all_reduce(large), 3)
    silent = collective_seconds(lambda: large.sum().item() and None, 2)
    assert len(talking) == 3
    assert all(0 < seen.total < 10 for seen in talking)
    assert all(seen.waited is not None and seen.waited > 0.5 * seen.total for seen in talking)  # there is nothing else to do
    assert [(seen.total, seen.waited) for seen in silent] == [(0.0, 0.0)] * 2


@joined
def what_is_computed_meanwhile_is_not_waited_for(rank: int, size: int) -> None:
    large, square = torch.ones(1 << 22), torch.rand(300, 300)

    def hidden() -> None:
        work = dist.all_reduce(large, async_op=True)
        assert work is not None
        while not work.is_completed():
            torch.mm(square, square)

    shares = [seen.waited / seen.total for seen in collective_seconds(hidden, 5) if seen.waited is not None]
    assert len(shares) == 5
    assert min(shares) < 0.7  # a busy machine interrupts between two operators too, and that counts


@joined
def a_steps_collectives_are_done_by_themselves(rank: int, size: int) -> None:
    half = dist.new_group(list(range(size)))
    part, whole = torch.ones(1200 // size), torch.ones(1200)

    def step() -> None:
        dist.all_reduce(whole.double())
        dist.all_gather_into_tensor(whole, part, group=half)
        dist.broadcast(whole, size - 1)
        dist.reduce_scatter_tensor(part, whole)

    with CountBytes("gloo") as counted:
        step()
    with CountBytes("gloo") as again:
        seconds = bare.seconds(counted.calls, time.perf_counter_ns)
    assert bare.unknown(counted.calls) is None
    assert len(seconds) == bare.TIMES
    assert all(0 < s < 10 for s in seconds)
    repeated = [call for call in again.calls if call.operator != "barrier"]
    assert [(c.operator, c.tensors) for c in repeated] == [(c.operator, c.tensors) for c in counted.calls] * (bare.TIMES + 1)
