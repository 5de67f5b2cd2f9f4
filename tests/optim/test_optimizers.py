"""What every optimizer promises."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from scalelab import optim
from scalelab.errors import ScalelabError
from scalelab.spec import Spec
from scalelab.strategies import STRATEGIES

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
    optimizer = optim.build(Spec(optimizer=name, lr={"lars": 5.0}.get(name, 0.05)), [weight])  # lars multiplies it by 0.001
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
    spec = Spec(optimizer=name, lr=0.125, weight_decay=0.25, momentum=0.5)
    (group,) = optim.build(spec, [nn.Parameter(torch.ones(2))]).param_groups
    assert (group["lr"], group["weight_decay"], group.get("momentum", 0.5)) == (0.125, 0.25, 0.5)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_saved_and_loaded_it_goes_on_to_the_bit(name):
    """From the parameters' slots alone: that is all that a checkpoint holds."""

    generator = torch.Generator().manual_seed(0)

    def step(gradient, *pairs):
        for parameter, optimizer in pairs:
            parameter.grad = gradient.clone()
            optimizer.step()

    spec = Spec(optimizer=name)
    one = nn.Parameter(torch.randn(SHAPE, generator=generator))
    first = optim.build(spec, [one])
    for _ in range(3):
        step(torch.randn(SHAPE, generator=generator), (one, first))
    two = nn.Parameter(one.detach().clone())
    second = optim.build(spec, [two])
    second.load_state_dict(
        {"state": copy.deepcopy(first.state_dict()["state"]), "param_groups": second.state_dict()["param_groups"]}
    )
    for _ in range(2):
        step(torch.randn(SHAPE, generator=generator), (one, first), (two, second))
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


def trajectory(name, starts, gradients, **settings):
    """The parameters after steps on the given gradients, [step][parameter]."""
    params = [nn.Parameter(start.clone()) for start in starts]
    optimizer = optim.build(Spec(optimizer=name, **settings), params)
    for step in gradients:
        for param, gradient in zip(params, step, strict=True):
            param.grad = gradient.clone()
        optimizer.step()
    return [param.detach() for param in params]


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_local_sgd_is_exact_where_the_mean_of_updates_is_the_update_by_the_mean(name):
    """Two ranks on gradients of their own, averaged after each step, their states left apart; against one on the mean gradients."""
    generator = torch.Generator().manual_seed(0)
    spec = Spec(optimizer=name, lr=0.1, weight_decay=0.01)
    start = torch.randn(SHAPE, dtype=torch.float64, generator=generator)
    params = [nn.Parameter(start.clone()) for _ in range(3)]
    apart_a, apart_b, one = (optim.build(spec, [param]) for param in params)
    for _ in range(4):
        a, b = (torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
        for param, optimizer, gradient in zip(params, (apart_a, apart_b, one), (a, b, (a + b) / 2), strict=True):
            param.grad = gradient
            optimizer.step()
        mean = (params[0].detach() + params[1].detach()) / 2
        for param in params[:2]:
            param.data.copy_(mean)
    assert torch.allclose(params[0], params[2], rtol=1e-12) == (name in STRATEGIES["local-sgd"].exact_for)


def test_lars_is_the_papers_without_weight_decay_too():
    """v ← µv + 0.001 |w| / (|g| + λ|w|) · (g + λw); w ← w - lr·v, for each tensor by itself; a tensor of zeros takes v ← µv + g."""
    starts = [torch.tensor([3.0, -4.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)]
    gradients = [[torch.tensor([0.5, 1.0], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)]]
    for decay in (0.0, 0.1):
        after = trajectory("lars", starts, gradients, lr=2.0, momentum=0.9, weight_decay=decay)
        norm = gradients[0][0].norm()
        expected = starts[0] - 2.0 * 0.001 * 5 / (norm + decay * 5) * (gradients[0][0] + decay * starts[0])
        assert torch.allclose(after[0], expected, rtol=1e-7)  # timm adds 1e-8 to the denominator
        assert torch.allclose(after[1], -2.0 * gradients[0][1])


def test_lamb_sees_each_tensor_by_itself():
    """No clipping by the norm of all gradients: another tensor's huge gradient changes nothing."""
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(2)]
    gradients = [[torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(2)] for _ in range(3)]
    together = trajectory("lamb", starts, [[a, 1000 * b] for a, b in gradients], lr=0.1)
    assert torch.equal(together[0], trajectory("lamb", starts[:1], [[a] for a, _ in gradients], lr=0.1)[0])


def test_the_optimizers_are_known_without_timm():
    """It takes seconds to import; only LARS and LAMB need it."""
    code = "import sys, scalelab.optim as o; o.build(o.Spec(), [o.torch.ones(1)]); sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_an_unknown_name_is_answered_with_the_list():
    with pytest.raises(ScalelabError, match=r"unknown optimizer 'adam' \(did you mean 'adamw'\?\); valid: sgd, adamw, adafactor"):
        optim.build(Spec(optimizer="adam"), [nn.Parameter(torch.ones(1))])


def test_a_model_without_parameters_is_told():
    with pytest.raises(ScalelabError, match="has no parameters"):
        optim.build(Spec(), nn.Flatten().parameters())
