"""What each rank runs in the tests of local-sgd: the strategy itself on a small model, its steps one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

from scalelab import optim
from scalelab.comm.instruments import CommunicationOff
from scalelab.comm.world import World, subgroup
from scalelab.spec import Spec
from scalelab.strategies.base import Recipe
from scalelab.strategies.local_sgd import LocalSGD
from tests.joined import joined

STEPS = 7
"""two synchronisations of H = 3, and one local step more"""
CASES: dict[str, Spec] = {
    "plain": Spec(strategy="local-sgd", sync_every=3, lr=0.1, weight_decay=0.01),
    "plain-adamw": Spec(strategy="local-sgd", sync_every=3, lr=0.02, optimizer="adamw"),
    "diloco": Spec(strategy="local-sgd", sync_every=3, lr=0.02, optimizer="adamw", outer_lr=0.7, outer_momentum=0.9),
    "outer-lr": Spec(strategy="local-sgd", sync_every=2, lr=0.1, outer_lr=0.5),
}


def model() -> nn.Module:
    """The same on every rank."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    """What a rank sees in a step."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(8, 6, generator=generator, dtype=torch.float64), torch.randint(3, (8,), generator=generator)


def built(spec: Spec, rank: int, size: int, made: nn.Module | None = None) -> LocalSGD:
    """The strategy on this rank, with equal shares."""
    world = World(rank, size, rank, torch.device("cpu"), "gloo", rank, size, "here", share=1 / size)
    recipe = Recipe(
        lambda: made or model(), lambda params: optim.build(spec, params), nn.functional.cross_entropy, lambda: False,
        shape=(6,), classes=3,
    )  # fmt: skip
    return LocalSGD(recipe, world, spec)


@joined
def trained(rank: int, size: int) -> None:
    """Each case's parameters after all steps, into a file beside this rank's log."""
    found = {}
    for case, spec in CASES.items():
        strategy = built(spec, rank, size)
        for step in range(STEPS):
            strategy.step([batch(step, rank)])
            assert bool(strategy.replicated()) == ((step + 1) % spec.sync_every == 0), "in the middle nothing is said to be equal"
        found |= {f"{case}/{name}": value.detach().clone() for name, value in strategy.named_parameters()}
    save_file(found, Path(os.environ["WORK"], f"trained-{size}-{rank}.safetensors"))


def everything(strategy: LocalSGD) -> list[Tensor]:
    """Copies of all that a rank holds of a training."""
    slots = [v for slot in strategy.optimizer.state.values() for v in slot.values() if isinstance(v, Tensor)]
    outer = [tensor for one in strategy.outers for tensor in one.held()]
    return [value.detach().clone() for value in (*strategy.module.parameters(), *slots, *outer)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether two lists hold the same bits."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@contextmanager
def silent(rank: int) -> Iterator[None]:
    """Communication off."""
    alone = subgroup([rank])
    with CommunicationOff(alone):
        yield
    dist.destroy_process_group(alone)


@joined
def probes_leave_no_trace(rank: int, size: int) -> None:
    """In the middle between two synchronisations: parameters, slots, anchor, outer momentum and the count come back."""
    for case in CASES:
        probed, other = built(CASES[case], rank, size), built(CASES[case], rank, size)
        for strategy in (probed, other):
            for step in range(4):
                strategy.step([batch(step, rank)])
        before = everything(probed)
        restore = probed.snapshot()
        with probed.probing():
            for step in range(40, 45):
                probed.step([batch(step, rank)])
        assert not same(everything(probed), before)
        restore()
        assert same(everything(probed), before)
        for strategy in (probed, other):
            for step in range(4, 9):
                strategy.step([batch(step, rank)])
        assert same(everything(probed), everything(other))


@joined
def silent_probes_do_not_shrink_the_weights(rank: int, size: int) -> None:
    """With communication off a sum over the ranks is one rank's part: after 60 steps nothing may be a denormal number."""
    for case in ("plain", "diloco"):
        strategy = built(CASES[case], rank, size)
        start = float(strategy.module[0].weight.detach().norm())  # type: ignore[index,operator,union-attr]
        with silent(rank), strategy.probing():
            for step in range(60):
                strategy.step([batch(step, rank)])
        assert float(strategy.module[0].weight.detach().norm()) > start / 3  # type: ignore[index,operator,union-attr]


class Sometimes(nn.Module):
    """Has a layer that only ``uses`` use."""

    def __init__(self, uses: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.more, self.uses = nn.Linear(6, 3).double(), nn.Linear(6, 3).double(), uses

    def forward(self, x: Tensor) -> Tensor:
        """[B, 6] → [B, 3]."""
        return self.always(x) + self.more(x) if self.uses else self.always(x)  # type: ignore[no-any-return]


@joined
def slots_that_only_one_rank_has_become_all_ranks(rank: int, size: int) -> None:
    """A layer that only rank 0 uses: after ``unite`` every rank holds the same parameters and the same slots."""
    for optimizer in ("sgd", "adamw", "adafactor"):
        strategy = built(Spec(strategy="local-sgd", sync_every=5, lr=0.1, optimizer=optimizer), rank, size, Sometimes(rank == 0))
        for step in range(4):
            strategy.step([batch(step, rank)])
        (own,) = (strategy.optimizer.state.get(p, {}) for p in [strategy.module.more.weight])  # type: ignore[union-attr]
        assert bool(own) == (rank == 0)
        strategy.unite()
        strategy.module.uses = True  # type: ignore[assignment]
        strategy.step([batch(4, rank)])
        strategy.module.uses = rank == 0  # type: ignore[assignment]
        strategy.step([batch(5, rank)])  # now rank 0 has counted one step more
        strategy.unite()
        slots = strategy.optimizer.state[strategy.module.more.weight]  # type: ignore[index,union-attr]
        assert slots.get("step", 6) == 6
        flat = torch.cat([value.double().reshape(-1) for value in everything(strategy)])
        table = flat.new_empty(size, len(flat))
        dist.all_gather_into_tensor(table.view(-1), flat)
        assert (table == table[0]).all(), optimizer
        assert set(strategy.optimizer.state) == set(strategy.module.parameters())
