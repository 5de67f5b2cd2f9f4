"""What every optimizer promises."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scalelab import optim
from scalelab.errors import ScalelabError
from scalelab.spec import Spec

SHAPE = (6, 4)


def train(name: str, cut: bool = False, steps: int = 4) -> torch.Tensor:
    """A parameter after some steps on given gradients; ``cut`` splits it into unequal flat pieces first."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(SHAPE, dtype=torch.float64, generator=generator)
    pieces = list(start.flatten().split(7)) if cut else [start]
    params = [nn.Parameter(piece.clone()) for piece in pieces]
    optimizer = optim.build(Spec(optimizer=name, lr=0.1, weight_decay=0.01), params)
    for _ in range(steps):
        gradient = torch.randn(SHAPE, dtype=torch.float64, generator=generator)
        parts = gradient.flatten().split(7) if cut else [gradient]
        for param, part in zip(params, parts, strict=True):
            param.grad = part.clone()
        optimizer.step()
    return torch.cat([param.detach().flatten() for param in params])


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_a_quadratic_falls(name):
    weight = nn.Parameter(torch.full((3, 3), 2.0))
    optimizer = optim.build(Spec(optimizer=name, lr=0.05), [weight])
    for _ in range(60):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert weight.abs().max() < 1.0


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_elementwise_says_whether_parameters_may_be_cut_anywhere(name):
    """Elementwise: cut into pieces it trains to the same bits. Otherwise it does not, or the word would be false."""
    assert torch.equal(train(name), train(name, cut=True)) == optim.OPTIMIZERS[name].elementwise


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_the_spec_reaches_every_optimizer(name):
    (group,) = optim.build(Spec(optimizer=name, lr=0.125, weight_decay=0.25), [nn.Parameter(torch.ones(2))]).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.125, 0.25)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_saved_and_loaded_it_goes_on_to_the_bit(name):
    def step(parameter, optimizer, value):
        parameter.grad = torch.full_like(parameter, value)
        optimizer.step()

    spec = Spec(optimizer=name)
    one = nn.Parameter(torch.ones(3, 2))
    first = optim.build(spec, [one])
    step(one, first, 0.5)
    two = nn.Parameter(one.detach().clone())
    second = optim.build(spec, [two])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(one, first, -0.25)
    step(two, second, -0.25)
    assert torch.equal(one, two)


def test_sgd_with_momentum_is_the_textbooks():
    """v ← µv + (g + λw); w ← w - lr·v (no dampening, no Nesterov), written out."""
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = optim.build(Spec(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01), [weight])
    expected, velocity = weight.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for value in (0.5, -1.0, 2.0):
        weight.grad = torch.full((2,), value, dtype=torch.float64)
        optimizer.step()
        velocity = 0.9 * velocity + value + 0.01 * expected
        expected = expected - 0.1 * velocity
    assert torch.allclose(weight, expected, rtol=1e-15)


def test_an_unknown_name_is_answered_with_the_list():
    with pytest.raises(ScalelabError, match=r"unknown optimizer 'adam' \(did you mean 'adamw'\?\); valid: sgd, adamw, adafactor"):
        optim.build(Spec(optimizer="adam"), [nn.Parameter(torch.ones(1))])


def test_a_model_without_parameters_is_told():
    with pytest.raises(ScalelabError, match="has no parameters"):
        optim.build(Spec(), nn.Flatten().parameters())
