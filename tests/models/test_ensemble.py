"""An ensemble's members, their average, and the loss of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from scalelab import models
from scalelab.errors import ScalelabError
from scalelab.spec import Spec

SHAPE = (3, 8, 8)


def build(**model_args: object) -> nn.Module:
    torch.manual_seed(0)
    return models.build(Spec(model="ensemble", model_args={"width": 2, **model_args}), 4, SHAPE)


def scores(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return torch.stack([member(images) for member in model.members])


def test_the_mean_of_the_logits_is_the_score():
    model, images = build().eval(), torch.randn(5, *SHAPE)
    torch.testing.assert_close(model(images), scores(model, images).mean(0))


def test_the_loss_of_averaged_probabilities_is_the_negative_log_of_their_mean():
    model, images, labels = build(average="probabilities").eval(), torch.randn(5, *SHAPE), torch.tensor([0, 1, 2, 3, 0])
    mean = scores(model, images).softmax(-1).mean(0)
    torch.testing.assert_close(functional.cross_entropy(model(images), labels), -mean[range(5), labels].log().mean())


def test_averaged_probabilities_of_great_scores_are_finite():
    model = build(average="probabilities", member="basic_cnn", members=2).eval()
    with torch.no_grad():
        model.members[0][-1].bias.copy_(torch.tensor([1e4, 0, 0, 0]))
    assert torch.isfinite(model(torch.randn(5, *SHAPE))).all()


def test_the_members_begin_with_weights_of_their_own():
    first, second, third = (member[0].weight for member in build().members)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_a_members_seed_gives_what_the_model_alone_has_of_that_seed():
    model = build(members=2, seeds="3:5")
    for member, seed in zip(model.members, (3, 5), strict=True):
        torch.manual_seed(seed)
        alone = models.build(Spec(model_args={"width": 2}), 4, SHAPE)
        assert all(torch.equal(a, b) for a, b in zip(member.parameters(), alone.parameters(), strict=True))


def test_a_member_may_be_any_model(tmp_path):
    path = tmp_path / "m.py"
    path.write_text(
        "from torch import nn\ndef f(num_classes, k):\n    return nn.Sequential(nn.Flatten(), nn.Linear(192 * k, num_classes))\n"
    )
    torch.manual_seed(0)
    for member, given in (("odd:tied", {}), (f"{path}:f", {"k": 1})):
        spec = Spec(model="ensemble", model_args={"member": member, "members": 2, **given})
        models.check_forward(models.build(spec, 4, SHAPE), SHAPE, 4)


def test_clips_have_members_of_clips():
    shape = (3, 3, 8, 8)
    torch.manual_seed(0)
    model = models.build(Spec(model="ensemble", model_args={"member": "cnn_lstm", "width": 2, "hidden": 2}), 4, shape)
    models.check_forward(model, shape, 4)


def test_what_it_is_is_told_for_the_record():
    assert models.told(build(members=2, seeds="3:5", average="probabilities")) == [
        "ensemble of 2 x basic_cnn, with the seeds 3, 5, trained together: the loss is that of the mean of the members' probabilities"
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"members": 0}, "members=0 should be a whole number"),
        ({"average": "votes"}, "unknown average of an ensemble 'votes'; valid: logits, probabilities"),
        ({"member": "basic_cn"}, "unknown model 'basic_cn'"),
        ({"member": "ensemble"}, "can't be an ensemble again"),
        ({"seeds": "3:5"}, "should be 3 whole numbers"),
        ({"seeds": "a:b:c"}, "should be 3 whole numbers"),
        ({"widht": 2}, "'basic_cnn' takes no argument 'widht'"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(ScalelabError, match=message) as caught:
        build(**given)
    assert "\n" not in str(caught.value)
