"""FLOPs of a training image, against what the shapes say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scalelab import models
from scalelab.measure.flops import per_image
from scalelab.spec import Spec


def conv(size: int, channels: int, outputs: int) -> int:
    """Forward FLOPs of a 3×3 convolution that keeps its ``size``."""
    return 2 * 9 * channels * outputs * size * size


def test_a_layer_costs_its_products_forward_and_twice_backward_but_no_gradient_of_the_images() -> None:
    first, second, head = conv(8, 3, 4), conv(8, 4, 5), 2 * 5 * 64 * 7
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 64, 7)
    )
    assert per_image(layers, (3, 8, 8)).median == 2 * first + 3 * second + 3 * head


def test_frozen_parameters_have_no_gradient_to_compute() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 7))
    layers[0].requires_grad_(False)
    assert per_image(layers, (3, 8, 8)).median == conv(8, 3, 4) + 2 * (2 * 4 * 64 * 7)


def test_resnet18_on_small_images_is_six_times_its_multiplications() -> None:
    found = per_image(models.build(Spec(model="resnet18"), 10, (3, 32, 32)), (3, 32, 32))
    multiplications = 555_422_720  # of the forward pass: the 0.56 G that are often printed for this stem
    assert found.median == 6 * multiplications - conv(32, 3, 64)


def test_attention_is_counted_with_its_two_products() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(6, 18)

        def forward(self, images: Tensor) -> Tensor:
            q, k, v = self.qkv(images.flatten(2)).unsqueeze(1).chunk(3, -1)
            return nn.functional.scaled_dot_product_attention(q, k, v).mean((1, 2))

    length, width = 5, 6
    projected = 2 * length * width * 3 * width
    products = 2 * (2 * length * length * width)
    assert per_image(Attention(), (length, 2, 3)).median == 2 * projected + 3 * products


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.BatchNorm1d(2)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert per_image(model, (3, 2, 2)).median
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_a_forward_that_looks_at_values_has_none_and_says_why() -> None:
    class Choosy(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            rows = images.flatten(1)
            return super().forward(rows if rows.sum() > 0 else -rows)

    found = per_image(Choosy(12, 2), (3, 2, 2))
    assert found.median is None
    assert "does not run without values" in str(found.reason)
