"""What every model promises, and what is said of one that cannot be had."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from scalelab import models
from scalelab.errors import ScalelabError
from scalelab.spec import Spec

NAMES = [*models.MODELS, "torchvision:mobilenet_v3_small", "timm:resnet10t"]


@contextlib.contextmanager
def refused(*parts: str) -> Iterator[None]:
    """A ScalelabError of one line that holds every part."""
    with pytest.raises(ScalelabError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


def build(model: str, num_classes: int = 7, shape: tuple[int, int, int] = (3, 32, 32), **model_args: object) -> nn.Module:
    torch.manual_seed(0)
    return models.build(Spec(model=model, model_args=model_args), num_classes, shape)


def user_model(tmp_path: Path, body: str, arguments: str = "num_classes") -> str:
    path = tmp_path / "my model.py"
    path.write_text(f"import torch\nfrom torch import nn\ndef f({arguments}):\n    {body}\n")
    return f"{path}:f"


@pytest.mark.parametrize("name", NAMES)
def test_a_model_gives_a_score_for_each_class(name):
    model = build(name)
    models.check_forward(model, (3, 32, 32), 7)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.training


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights(name):
    one, two = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    model = build(name)
    nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.tensor([0, 1, 2, 3])).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (5, 9, 17), (3, 64, 64), (2, 96, 80)])
@pytest.mark.parametrize("name", [*models.MODELS, "timm:resnet10t"])
def test_our_models_and_timms_take_any_channels_and_size(name, shape):
    models.check_forward(build(name, shape=shape), shape, 7)


def test_basic_cnn_is_the_one_that_was_described():
    model = build("basic_cnn")
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"] * 3 + ["Flatten", "Linear"]
    assert [layer.out_channels for layer in model if isinstance(layer, nn.Conv2d)] == [32, 64, 128]


def test_pooling_before_the_relu_computes_what_pooling_after_it_does():
    ours = build("basic_cnn").double()
    layers = [nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in ours]
    for place in (2, 6, 10):
        layers[place], layers[place + 1] = layers[place + 1], layers[place]
    described = nn.Sequential(*layers)
    assert [type(layer).__name__ for layer in described[:4]] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    results = []
    for model in (ours, described):
        output = model(images)
        gradients = torch.autograd.grad(nn.functional.cross_entropy(output, torch.arange(8) % 7), list(ours.parameters()))
        results.append((output, gradients))
    assert torch.equal(results[0][0], results[1][0])
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_resnet18_keeps_the_resolution_of_small_images_only():
    small, large = build("resnet18", shape=(3, 64, 64)), build("resnet18", shape=(3, 65, 65))
    assert (small.conv1.kernel_size, small.conv1.stride, type(small.maxpool)) == ((3, 3), (1, 1), nn.Identity)
    assert (large.conv1.kernel_size, large.conv1.stride, type(large.maxpool)) == ((7, 7), (2, 2), nn.MaxPool2d)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_models_with_extra_heads_give_one_output_while_training(name, recwarn):
    model = build(f"torchvision:{name}", shape=(3, 96, 96))
    assert isinstance(model(torch.zeros(2, 3, 96, 96)), torch.Tensor)
    assert [str(w.message) for w in recwarn if "init" in str(w.message)] == []


def test_model_arguments_reach_the_model(tmp_path):
    assert build("basic_cnn", width=8)[0].out_channels == 8
    assert build("resnet18", zero_init_residual=True).layer1[0].bn2.weight.abs().max() == 0
    assert build("torchvision:mobilenet_v3_small", dropout=0.75).classifier[2].p == 0.75
    assert build("timm:resnet10t", drop_rate=0.25).drop_rate == 0.25
    name = user_model(tmp_path, "return nn.Sequential(nn.Flatten(), nn.Linear(3072 * k, num_classes))", "num_classes, k=2")
    assert build(name, k=1)[1].in_features == 3072


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_that_the_model_does_not_take_is_refused(name):
    with refused(name, "widht"):
        build(name, widht=8)


def test_the_arguments_of_a_users_function_are_listed(tmp_path):
    with refused("takes no argument 'deptj'", "did you mean 'depth'", "valid: depth, width"):
        build(user_model(tmp_path, "pass", "num_classes, depth=1, width=2"), deptj=3)
    with refused("it takes none"):
        build(user_model(tmp_path, "pass"), depth=3)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_classes_is_the_data_sets_alone(name):
    with refused(name, "'num_classes'", "the data set decides"):
        models.build(Spec(model=name, model_args={"num_classes": 3}), 7, (3, 32, 32))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "resnet81",
            ["unknown model 'resnet81'", "did you mean 'resnet18'", "basic_cnn", "torchvision:NAME", "timm:NAME", "file.py"],
        ),
        ("torchvision:resnet81", ["torchvision has", "torchvision:resnet18"]),
        ("timm:resnet10q", ["timm has", "timm:resnet10t"]),
        ("timm:", ["unknown model 'timm:'"]),
        ("keras:resnet", ["unknown model 'keras:resnet'", "basic_cnn"]),
        ("torchvision:fcn_resnet50", ["none called 'fcn_resnet50'"]),
        ("torchvision:zzzzzzzz", ["none called 'zzzzzzzz'"]),
    ],
)
def test_unknown_names_are_answered_with_valid_ones(name, parts):
    with refused(*parts):
        build(name)


def test_torchvision_models_refuse_other_channels_and_say_who_takes_them():
    with refused("3 channels", "basic_cnn", "timm"):
        build("torchvision:resnet18", shape=(1, 32, 32))


def test_basic_cnn_refuses_images_below_8_pixels_and_a_width_below_1():
    with refused("8x8", "7x12"):
        build("basic_cnn", shape=(1, 7, 12))
    for width in (0, -1, "x", 1.5):
        with refused("width", repr(width)):
            build("basic_cnn", width=width)


def test_an_image_too_small_for_the_model_is_told():
    with refused("cannot take images of 3x8x8"):
        models.check_forward(build("torchvision:alexnet", shape=(3, 8, 8)), (3, 8, 8), 7)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("return nn.Flatten()", ["[2, 3072]", "[2, 7]"]),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(3072, 5))", ["[2, 5]", "[2, 7]"]),
        ("return nn.Linear(5, num_classes)", ["cannot take images of 3x32x32", "RuntimeError"]),
        ("return nn.LSTM(32, 7)", ["cannot take images"]),
        ("return type('M', (nn.Module,), {'forward': lambda self, x: (x, x)})()", ["gives tuple", "[2, 7]"]),
        ("return type('M', (nn.Module,), {'forward': lambda self, x: x.nothing})()", ["AttributeError", "my model.py:4"]),
    ],
)
def test_a_users_model_that_does_not_fit_the_data_is_told(tmp_path, body, parts):
    with refused(*parts):
        models.check_forward(build(user_model(tmp_path, body)), (3, 32, 32), 7)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("raise KeyError('gone')", ["KeyError: 'gone'", "my model.py:4"]),
        ("return 3", ["must return a torch.nn.Module", "int"]),
        ("return nn.Linear", ["must return a torch.nn.Module", "type"]),
        ("pass", ["must return a torch.nn.Module", "NoneType"]),
        ("return nn.Linear(num_classes)", ["TypeError", "my model.py:4"]),
    ],
)
def test_a_users_function_that_goes_wrong_is_told(tmp_path, body, parts):
    with refused(*parts):
        build(user_model(tmp_path, body))


def test_the_check_changes_neither_the_mode_nor_the_statistics():
    model = build("basic_cnn")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    models.check_forward(model, (3, 32, 32), 7)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_check_takes_a_model_in_float64():
    models.check_forward(build("basic_cnn").double(), (3, 32, 32), 7)
