"""The field's image classifiers by their own names: torchvision's and timm's, with any number of channels.

Above 64 pixels they are the originals. Those that halve the image too early for less have the variant that is published for CIFAR,
named at each function; ``pytorch-cifar`` is github.com/kuangliu/pytorch-cifar.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from scalelab.errors import ScalelabError
from scalelab.models.libraries import original
from scalelab.models.shapes import Shape

SMALL = 64
"""images up to this size have the CIFAR variant"""
TOKENS, MOST_TOKENS, PATCH = 8, 1024, 16
"""vit_s: patches along the shorter side at least, patches of an image at most, pixels of the original's patch"""
Initialise = Callable[[torch.Tensor], Any]
FAN_OUT: Initialise = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
"""how torchvision's ResNets, VGGs, MobileNets and EfficientNets begin"""


def resnet18(num_classes: int, shape: Shape, **model_args: Any) -> nn.Module:
    """ResNet-18 (He et al. 2016). Small images: a stem of one 3×3 convolution, stride 1, no max-pool, as in the paper's CIFAR nets."""
    return _resnet("resnet18", num_classes, shape, model_args)


def resnet50(num_classes: int, shape: Shape, **model_args: Any) -> nn.Module:
    """ResNet-50 (He et al. 2016); small images as with ``resnet18`` (pytorch-cifar: 23,520,842 parameters for 10 classes)."""
    return _resnet("resnet50", num_classes, shape, model_args)


def _resnet(name: str, num_classes: int, shape: Shape, model_args: dict[str, Any]) -> nn.Module:
    model: Any = original(name, num_classes, model_args)
    if _small(shape):
        model.conv1 = _first(shape[0], 64, FAN_OUT, kernel_size=3, stride=1, padding=1)
        model.maxpool = nn.Identity()
    elif shape[0] != 3:
        model.conv1 = _first(shape[0], 64, FAN_OUT, kernel_size=7, stride=2, padding=3)
    return model  # type: ignore[no-any-return]


def vgg16(num_classes: int, shape: Shape, dropout: float | None = None) -> nn.Module:
    """VGG-16 (Simonyan & Zisserman 2015). Small images: with batch norm and one linear layer (pytorch-cifar: 14,728,266 parameters).

    ``dropout`` before linear layers: 0.5 in the original, none in the variant.
    """
    if not _small(shape):
        model: Any = original("vgg16", num_classes, {} if dropout is None else {"dropout": dropout})
        if shape[0] != 3:
            model.features[0] = _first(shape[0], 64, FAN_OUT, kernel_size=3, padding=1, bias=True)
        return model  # type: ignore[no-any-return]
    layers: list[nn.Module] = []
    channels = shape[0]
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [
                _first(channels, width, FAN_OUT, kernel_size=3, padding=1, bias=True),
                nn.BatchNorm2d(width),
                nn.ReLU(True),
            ]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return _chain(layers, channels, dropout, num_classes)


def alexnet(num_classes: int, shape: Shape, dropout: float | None = None) -> nn.Module:
    """AlexNet (Krizhevsky 2014). Small images: pooled by 2 instead of 3/2, one linear layer (github.com/bearpaw/pytorch-classification).

    The variant has 2,472,266 parameters for 10 classes. ``dropout`` as with ``vgg16``.
    """
    if not _small(shape):
        model: Any = original("alexnet", num_classes, {} if dropout is None else {"dropout": dropout})
        if shape[0] != 3:
            model.features[0] = nn.Conv2d(shape[0], 64, kernel_size=11, stride=4, padding=2)
        return model  # type: ignore[no-any-return]
    layers = [
        nn.Conv2d(shape[0], 64, kernel_size=11, stride=4, padding=5), nn.ReLU(True), nn.MaxPool2d(2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2), nn.ReLU(True), nn.MaxPool2d(2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1), nn.ReLU(True),
        nn.Conv2d(384, 256, kernel_size=3, padding=1), nn.ReLU(True),
        nn.Conv2d(256, 256, kernel_size=3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
    ]  # fmt: skip
    return _chain(layers, 256, dropout, num_classes)


def _chain(features: list[nn.Module], width: int, dropout: float | None, num_classes: int) -> nn.Module:
    """The modules in torchvision's names, averaged over what pixels are left."""
    head = [nn.Linear(width, num_classes)] if not dropout else [nn.Dropout(dropout), nn.Linear(width, num_classes)]
    named = (
        ("features", nn.Sequential(*features)), ("avgpool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()),
        ("classifier", nn.Sequential(*head)),
    )  # fmt: skip
    return nn.Sequential(OrderedDict(named))


def inception_v3(num_classes: int, shape: Shape, **model_args: Any) -> nn.Module:
    """Inception v3 (Szegedy et al. 2016) without its extra head: 23,834,568 parameters for 1000 classes."""
    model: Any = original("inception_v3", num_classes, model_args)
    if shape[0] != 3:
        begin: Initialise = partial(nn.init.trunc_normal_, std=0.1, a=-2.0, b=2.0)
        model.Conv2d_1a_3x3.conv = _first(shape[0], 32, begin, kernel_size=3, stride=2)
    return model  # type: ignore[no-any-return]


def mobilenet_v2(num_classes: int, shape: Shape, **model_args: Any) -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018). Small images: stride 1 in the stem and in the 24-channel stage (pytorch-cifar)."""
    if _small(shape):
        setting = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
        model_args = {"inverted_residual_setting": setting, **model_args}
    return _with_stem(original("mobilenet_v2", num_classes, model_args), shape)


def efficientnet_b0(num_classes: int, shape: Shape, **model_args: Any) -> nn.Module:
    """EfficientNet-B0 (Tan & Le 2019). Small images: stride 1 in the stem (pytorch-cifar)."""
    return _with_stem(original("efficientnet_b0", num_classes, model_args), shape)


def _with_stem(model: Any, shape: Shape) -> nn.Module:
    """The model with a first convolution for ``shape``, where the library's is not."""
    stem = model.features[0]
    stride = 1 if _small(shape) else 2
    if stride == 1 or shape[0] != 3:
        stem[0] = _first(shape[0], stem[0].out_channels, FAN_OUT, kernel_size=3, stride=stride, padding=1)
    return model  # type: ignore[no-any-return]


def vit_s(num_classes: int, shape: Shape, **model_args: Any) -> nn.Module:
    """timm's ViT-S (Touvron et al. 2021: 384 wide, 12 deep, 6 heads), in at least 8×8 patches of at most 16 pixels.

    So images of 32 pixels have patches of 4, of 64 of 8 (Lee et al. 2021), of 224 of 16; ``patch_size`` says another. Raises
    ScalelabError where no patch divides the image into at most 1024.
    """
    import timm

    _, height, width = shape
    most = min(PATCH, max(1, min(height, width) // TOKENS))
    patch = next(size for size in range(most, 0, -1) if math.gcd(height, width) % size == 0)
    if "patch_size" not in model_args and height * width // patch**2 > MOST_TOKENS:
        raise ScalelabError(
            f"vit_s: no patch of up to {most} pixels divides images of {height}x{width} into at most {MOST_TOKENS}; use --resize 224"
        )
    given = {"patch_size": patch, "img_size": (height, width), "in_chans": shape[0], "num_classes": num_classes, **model_args}
    model: nn.Module = timm.create_model("vit_small_patch16_224", pretrained=False, **given)
    return model


def _first(channels: int, out: int, initialise: Initialise, bias: bool = False, **geometry: int) -> nn.Conv2d:
    """A convolution whose weight begins as ``initialise`` sets it, and whose bias at 0."""
    conv = nn.Conv2d(channels, out, bias=bias, **geometry)  # type: ignore[arg-type]
    initialise(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def _small(shape: Shape) -> bool:
    return max(shape[1:]) <= SMALL
