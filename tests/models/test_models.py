"""What every model promises, and what is said of one that cannot be had."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from scalelab import models
from scalelab.errors import ScalelabError
from scalelab.spec import HELP, Spec

OURS = [name for name, row in models.MODELS.items() if 3 in row.takes]
NAMES = [*OURS, "torchvision:mobilenet_v3_small", "timm:resnet10t"]
LIGHT = [name for name in NAMES if name not in ("vgg16", "inception_v3", "resnet50", "efficientnet_b0", "vit_s")]
"""made with values; the others as outlines: theirs take seconds"""
SMALLEST = {name: models.MODELS[name].smallest for name in OURS}
IMAGENET = {  # what their papers' implementations have, for 1000 classes
    "vgg16": (224, 138_357_544), "alexnet": (224, 61_100_840), "inception_v3": (299, 23_834_568), "resnet18": (224, 11_689_512),
    "resnet50": (224, 25_557_032), "mobilenet_v2": (224, 3_504_872), "efficientnet_b0": (224, 5_288_548), "vit_s": (224, 22_050_664),
}  # fmt: skip
CIFAR = {  # what is published for the variants, for 10 classes; no other layers than the original's for the last three
    "vgg16": 14_728_266, "alexnet": 2_472_266, "resnet18": 11_173_962, "resnet50": 23_520_842,
    "mobilenet_v2": 3_504_872 - 1_281_000 + 12_810, "efficientnet_b0": 5_288_548 - 1_281_000 + 12_810, "vit_s": 21_342_346,
}  # fmt: skip


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


@functools.cache
def usual(name: str) -> nn.Module:
    """A model for the smallest images that most data sets have, made once: its weights must stay."""
    return build(name, shape=usual_shape(name))


def usual_shape(name: str) -> tuple[int, int, int]:
    size = max(32, SMALLEST.get(name, 32))
    return (3, size, size)


def outline(name: str, num_classes: int, shape: tuple[int, ...]) -> nn.Module:
    """A model without values: as quickly made as its layers are named."""
    with torch.device("meta"):
        return models.build(Spec(model=name), num_classes, shape)


@pytest.mark.parametrize("name", LIGHT)
def test_a_model_gives_a_score_for_each_class(name):
    model = usual(name)
    models.check_forward(model, usual_shape(name), 7)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.training


@pytest.mark.parametrize("name", LIGHT)
def test_the_same_seed_gives_the_same_weights(name):
    one, two = usual(name), build(name, shape=usual_shape(name))
    assert all(torch.equal(value, other) for value, other in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    model = outline(name, 7, usual_shape(name))
    names, parameters = zip(*model.named_parameters(), strict=True)
    scores = model(torch.zeros(4, *usual_shape(name), device="meta"))
    gradients = torch.autograd.grad(scores.square().sum(), parameters, allow_unused=True)
    assert [key for key, gradient in zip(names, gradients, strict=True) if gradient is None] == []


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (5, 33, 45), (3, 64, 64), (2, 96, 80), (1, 299, 299)])
@pytest.mark.parametrize("name", [*OURS, "timm:resnet10t"])
def test_our_models_and_timms_take_any_channels_and_any_size_from_their_smallest_on(name, shape):
    if min(shape[1:]) < SMALLEST.get(name, 1):
        with refused(name, f"at least {SMALLEST[name]}x{SMALLEST[name]}", f"{shape[1]}x{shape[2]}", "--resize"):
            outline(name, 7, shape)
    else:
        assert outline(name, 7, shape)(torch.zeros(2, *shape, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("name", [name for name in OURS if SMALLEST[name] > 1])
def test_the_size_that_is_advised_is_taken(name):
    size = models.MODELS[name].resize
    assert outline(name, 7, (3, size, size))(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 7)
    with pytest.raises(ScalelabError, match="needs images of at least"):
        outline(name, 7, (3, SMALLEST[name] - 1, 300))


def test_inception_for_cifar_is_advised_its_own_size():
    with refused("inception_v3", "at least 75x75", "these are 32x32", "--resize 299"):
        build("inception_v3")


@pytest.mark.parametrize("name", IMAGENET)
def test_large_images_have_the_original(name):
    size, parameters = IMAGENET[name]
    assert sum(p.numel() for p in outline(name, 1000, (3, size, size)).parameters()) == parameters


@pytest.mark.parametrize("name", CIFAR)
def test_small_images_have_the_published_variant(name):
    assert sum(p.numel() for p in outline(name, 10, (3, 32, 32)).parameters()) == CIFAR[name]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0"])
def test_other_channels_begin_as_the_librarys_own_do(name):
    first, library = (
        next(m for m in build(n, shape=(channels, 65, 65)).modules() if isinstance(m, nn.Conv2d))
        for n, channels in ((name, 1), (f"torchvision:{name}", 3))
    )
    assert (first.in_channels, first.stride, first.kernel_size) == (1, library.stride, library.kernel_size)
    assert float(first.weight.detach().std()) == pytest.approx(float(library.weight.detach().std()), rel=0.2)


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (28, 2), (32, 4), (64, 8), (96, 12), (224, 16)])
def test_vit_s_has_patches_that_suit_the_image(size, patch):
    assert outline("vit_s", 7, (3, size, size)).patch_embed.patch_size == (patch, patch)


def test_an_image_that_no_patch_divides_is_told():
    with refused("vit_s", "67x67", "--resize 224"):
        outline("vit_s", 7, (3, 67, 67))


def test_a_model_of_images_is_refused_for_clips_and_the_one_of_clips_for_images():
    for name in ("resnet18", "timm:resnet10t", "torchvision:mobilenet_v3_small", "odd:tied", "ensemble"):
        with refused("takes no clips", "use cnn_lstm"):
            outline(name, 7, (5, 3, 32, 32))
    with refused("'cnn_lstm' takes no images", "basic_cnn", "resnet18"):
        outline("cnn_lstm", 7, (3, 32, 32))


def test_the_flags_help_names_every_model():
    listed = HELP["model"].split(", ")
    assert listed[: len(models.MODELS)] == list(models.MODELS)


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


@pytest.mark.parametrize("name", ["torchvision:googlenet", "torchvision:inception_v3", "inception_v3"])
def test_models_with_extra_heads_give_one_output_while_training(name, recwarn):
    model = outline(name, 7, (3, 96, 96))
    assert isinstance(model(torch.zeros(2, 3, 96, 96, device="meta")), torch.Tensor)
    assert [str(w.message) for w in recwarn if "init" in str(w.message)] == []


def test_model_arguments_reach_the_model(tmp_path):
    assert build("basic_cnn", width=8)[0].out_channels == 8
    assert build("resnet18", zero_init_residual=True).layer1[0].bn2.weight.abs().max() == 0
    assert build("torchvision:mobilenet_v3_small", dropout=0.75).classifier[2].p == 0.75
    assert build("timm:resnet10t", drop_rate=0.25).drop_rate == 0.25
    name = user_model(tmp_path, "return nn.Sequential(nn.Flatten(), nn.Linear(3072 * k, num_classes))", "num_classes, k=2")
    assert build(name, k=1)[1].in_features == 3072


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ensemble"])
def test_an_argument_that_the_model_does_not_take_is_refused(name):
    with refused(name, "widht"):
        build(name, shape=usual_shape(name), widht=8)


def test_the_arguments_of_a_users_function_are_listed(tmp_path):
    with refused("takes no argument 'deptj'", "did you mean 'depth'", "valid: depth, width"):
        build(user_model(tmp_path, "pass", "num_classes, depth=1, width=2"), deptj=3)
    with refused("it takes none"):
        build(user_model(tmp_path, "pass"), depth=3)


@pytest.mark.parametrize("name", ["resnet18", "vit_s", "torchvision:resnet18", "timm:resnet10t"])
@pytest.mark.parametrize("argument", ["weights", "pretrained", "checkpoint_path"])
def test_no_argument_loads_weights(tmp_path, name, argument):
    """timm's checkpoint_path would run a pickle's code; the others go to the network."""
    with refused(f"'{argument}' is not a model argument here", "--weights FILE"):
        build(name, **{argument: str(tmp_path / "w.pth")})
    with refused(f"'{argument}' is not a model argument here"):
        build("ensemble", member=name, **{argument: "w.pth"})


def test_a_function_of_the_users_may_have_an_argument_of_any_name(tmp_path):
    assert isinstance(build(user_model(tmp_path, "return nn.Linear(weights, 7)", "num_classes, weights"), weights=3), nn.Linear)


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


def test_basic_cnn_refuses_a_width_below_1():
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
