"""What each rank runs in the tests of compressed gradients: ddp on a small model, its steps one by one."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scalelab import optim
from scalelab.comm.world import World
from scalelab.spec import Spec
from scalelab.strategies.base import Recipe
from scalelab.strategies.ddp import DDP
from tests.joined import joined

SPEC = Spec(strategy="ddp", compress="powersgd", powersgd_rank=2, lr=0.1, momentum=0.0)
STEPS = 4


def model() -> nn.Module:
    """A convolution whose weight lies channels-last, one layer worth compressing and one that is not."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 12, 3),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, 24),
        nn.Tanh(),
        nn.Linear(24, 3),
    )
    return nn.Sequential(*layers).double().to(memory_format=torch.channels_last)


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    """What a rank sees in a step."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(6, 3, 5, 5, generator=generator, dtype=torch.float64), torch.randint(3, (6,), generator=generator)


@joined
def powersgd(rank: int, size: int) -> None:
    """The parameters after each step, into a file in ``WORK``."""
    world = World(rank, size, rank, torch.device("cpu"), "gloo", rank, size, "here", share=1 / size)
    recipe = Recipe(
        model, lambda params: optim.build(SPEC, params), nn.functional.cross_entropy, lambda: False, shape=(3, 5, 5), classes=3
    )
    strategy, found = DDP(recipe, world, SPEC), dict[str, Tensor]()
    for step in range(STEPS):
        strategy.step([batch(step, rank)])
        found |= {f"{step}/{name}": value.detach().contiguous().clone() for name, value in strategy.named_parameters()}
    save_file(found, Path(os.environ["WORK"], f"powersgd-{rank}.safetensors"))
