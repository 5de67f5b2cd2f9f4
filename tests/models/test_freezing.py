"""What ``--freeze`` takes out of a training, and what it keeps as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from scalelab import models
from scalelab.errors import ScalelabError
from scalelab.spec import Spec


def build(model: str = "basic_cnn", **model_args: object) -> nn.Module:
    torch.manual_seed(0)
    return models.build(Spec(model=model, model_args=model_args), 4, (3, 8, 8))


def frozen(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def test_the_parameters_that_match_are_frozen_and_no_others():
    model = build(width=4)
    told = models.freeze(model, "0.*, 1.*")
    assert frozen(model) == ["0.weight", "1.weight", "1.bias"]
    assert told.startswith("--freeze 0.*, 1.*: 116 of 1,")
    assert told.endswith("a batch norm keeps its running statistics")


def test_a_tied_parameter_is_frozen_under_either_name():
    model = build("odd:tied")
    models.freeze(model, "second.weight")
    assert not model.first.weight.requires_grad


def test_a_frozen_batch_norm_keeps_its_statistics_in_training_and_a_trained_one_does_not():
    model = build(width=4)
    models.freeze(model, "0.*,1.*")
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.eval()
    model.train()
    model(torch.randn(8, 3, 8, 8))
    moved = {name for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert moved == {f"{place}.{name}" for place in (5, 9) for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_a_batch_norm_of_which_a_part_is_trained_is_not_frozen():
    model = build(width=4)
    told = models.freeze(model, "1.weight")
    assert model[1].train().training
    assert "batch norm" not in told


def test_a_batch_norm_without_parameters_is_frozen_with_its_module():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, affine=False)), nn.Flatten(), nn.Linear(72, 4))
    models.freeze(model, "0.*")
    assert not model.train()[0][1].training


def test_a_copy_is_frozen_by_itself():
    model = build(width=4)
    models.freeze(model, "0.*,1.*")
    other = copy.deepcopy(model).train()
    assert not other[1].training
    assert other[1].train() is other[1]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("10*", r"no parameter's name matches '10\*'"),
        ("0.*,conv1*", r"matches 'conv1\*'"),
        ("0", r"matches '0' \(did you mean '0\.\*'\?\)"),
        ("0.wieght", r"did you mean '0.weight'"),
        ("0.*,", "matches ''"),
        ("*", "nothing is left to train"),
    ],
)
def test_patterns_that_match_nothing_or_everything_are_refused(patterns, message):
    with pytest.raises(ScalelabError, match=message) as caught:
        models.freeze(build(), patterns)
    assert "\n" not in str(caught.value)
