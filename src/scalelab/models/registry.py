"""From ``spec.model`` to a module: float32, on the CPU, with weights from torch's global generator."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scalelab import userfile
from scalelab.errors import ScalelabError, nearest
from scalelab.models import basic_cnn, classics, cnn_lstm, ensemble, libraries
from scalelab.models.shapes import CLIP, IMAGE, Shape, kind
from scalelab.models.shapes import told as in_words
from scalelab.spec import Spec

Builder = Callable[..., nn.Module]
"""Called as (num_classes, shape, **model_args), where shape is (C, H, W), or (T, C, H, W) for clips."""


@dataclass(frozen=True)
class Model:
    """A model by a name of ours. ``resize`` is the size to advise where an image's shorter side is below ``smallest`` pixels.

    ``takes``: how long the shapes are that it takes. ``variant``: for small images it has layers of other shapes than the original's.
    """

    build: Builder
    smallest: int = 1
    resize: int = 32
    takes: tuple[int, ...] = (IMAGE,)
    variant: bool = False


MODELS: dict[str, Model] = {
    "basic_cnn": Model(basic_cnn.build, basic_cnn.SMALLEST),
    "vgg16": Model(classics.vgg16, 32, variant=True),
    "alexnet": Model(classics.alexnet, 29, variant=True),
    "inception_v3": Model(classics.inception_v3, 75, 299),
    "resnet18": Model(classics.resnet18, variant=True),
    "resnet50": Model(classics.resnet50, variant=True),
    "mobilenet_v2": Model(classics.mobilenet_v2),
    "efficientnet_b0": Model(classics.efficientnet_b0),
    "vit_s": Model(classics.vit_s, variant=True),
    "cnn_lstm": Model(cnn_lstm.build, basic_cnn.SMALLEST, takes=(CLIP,)),
    "ensemble": Model(ensemble.build, takes=(IMAGE, CLIP)),
}
DECIDED = frozenset({"num_classes", "in_chans", "shape"})
BEGINNINGS = frozenset({"weights", "pretrained", "checkpoint_path"})
"""arguments by which torchvision and timm load weights: from the network, or a file whose pickled code would run"""
LIBRARIES: dict[str, libraries.Library] = {
    "torchvision": libraries.TORCHVISION,
    "timm": libraries.TIMM,
    "odd": libraries.ODDITIES,
}


def build(spec: Spec, num_classes: int, shape: Shape) -> nn.Module:
    """The model ``spec.model`` for samples of ``shape``, with ``spec.model_args``; seed torch before. Raises as ``make`` does."""
    return make(spec.model, spec.model_args, num_classes, shape)


def make(name: str, model_args: dict[str, Any], num_classes: int, shape: Shape) -> nn.Module:
    """The model ``name`` for images of ``shape`` (C, H, W) or clips of (T, C, H, W); seed torch before.

    Raises ScalelabError in one line: an unknown name (with the valid or the nearest ones), an argument that the
    model does not take, clips for a model of images, an image too small, channels it cannot have, a user's function that raises or
    returns no module.
    """
    builder, accepted = _find(name)
    _check_arguments(name, model_args, accepted)
    _check_shape(name, shape)
    shown = ", ".join(f"{key}={value!r}" for key, value in model_args.items())
    what = f"model '{name}' cannot be built" + (f" with {shown}" if shown else "")
    with userfile.blame(what):
        model = builder(num_classes, shape, **model_args)
    if not isinstance(model, nn.Module):
        raise ScalelabError(f"model '{name}' must return a torch.nn.Module, not {type(model).__name__}")
    return model


def _check_shape(name: str, shape: Shape) -> None:
    """Raises ScalelabError for clips where the model takes images, for the reverse, and for images that are too small for it."""
    if userfile.is_reference(name):  # may take either: its forward tells
        return
    row = MODELS.get(name)
    if len(shape) not in (row.takes if row else (IMAGE,)):
        others = [other for other, there in MODELS.items() if len(shape) in there.takes]
        raise ScalelabError(
            f"model '{name}' takes no {kind(shape)}, and the data set holds {kind(shape)}; use {', '.join(others)}"
        )
    height, width = shape[-2:]
    if row and min(height, width) < row.smallest:
        raise ScalelabError(
            f"model '{name}' needs {kind(shape)} of at least {row.smallest}x{row.smallest} pixels, and these are {height}x{width}: "
            f"use --resize {row.resize}"
        )


def is_variant(name: str, shape: Shape) -> bool:
    """Whether the model ``name`` has, for samples of ``shape``, other layers than its original."""
    return name in MODELS and MODELS[name].variant and max(shape[-2:]) <= classics.SMALL


def told(model: nn.Module) -> list[str]:
    """What a reader of the record should know of how a model is made: a line, or none."""
    return [model.told] if isinstance(model, ensemble.Ensemble) else []


def check_forward(model: nn.Module, shape: Shape, num_classes: int) -> None:
    """One forward and backward of two zero images in eval mode: must give [2, num_classes], and a gradient. Raises ScalelabError.

    Finds, before anything starts, an image too small for the model, a model for other classes or channels, one that can't be trained.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta or isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ScalelabError(
                f"the model's parameter '{name}' has no values yet (lazy, or on 'meta'): give it some in the function"
            )
    with userfile.blame(f"the model cannot take {in_words(shape)}"):
        output = _evaluate(model, shape)
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != (2, num_classes):
        found = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ScalelabError(f"the model gives {found} for 2 {in_words(shape)}; it must give [2, {num_classes}]: a score a class")
    if not output.requires_grad:
        raise ScalelabError("nothing in the model can be trained: no parameter that its output depends on has requires_grad")
    with userfile.blame("the model has an output, but its backward pass fails"):
        torch.autograd.grad(output.sum(), [p for p in model.parameters() if p.requires_grad], allow_unused=True)


def unused_parameters(model: nn.Module, shape: Shape) -> list[str]:
    """Names of the trainable parameters that the output does not depend on, for one of a few inputs, in evaluation or in training.

    The model is not the same afterwards (batch norm's statistics, what it counts): give one that nobody trains.
    """
    zeros, various = _two_batches(model, shape)
    with evaluating(model):
        unused = _without_gradient(model, zeros) | _without_gradient(model, various)
    model.train()
    return sorted(unused | _without_gradient(model, various))


def choosy_parameters(model: nn.Module, shape: Shape) -> list[str]:
    """Names of the trainable parameters that the output depends on for one of two inputs: ranks may differ in having their gradients."""
    zeros, various = _two_batches(model, shape)
    with evaluating(model):
        return sorted(_without_gradient(model, zeros) ^ _without_gradient(model, various))


def _two_batches(model: nn.Module, shape: Shape) -> tuple[Tensor, Tensor]:
    """Zeros, and a dark and a bright image."""
    like = next(model.parameters())
    return torch.zeros(2, *shape).to(like), torch.linspace(-2, 1, 2 * math.prod(shape)).view(2, *shape).to(like)


def _without_gradient(model: nn.Module, images: Tensor) -> set[str]:
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    output = model(images)
    if not isinstance(output, Tensor):  # several outputs while training: the training's own words tell that
        return set()
    gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    return {name for name, gradient in zip(names, gradients, strict=True) if gradient is None}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _evaluate(model: nn.Module, shape: Shape) -> Any:
    """The output for two zero images in eval mode, with its graph."""
    parameter = next(model.parameters(), torch.empty(0))
    with evaluating(model):
        return model(torch.zeros(2, *shape, dtype=parameter.dtype, device=parameter.device))


def _check_arguments(model: str, model_args: dict[str, Any], function: Callable[..., Any]) -> None:
    """Raises ScalelabError for a model argument that ``function`` does not name, where it names all it takes.

    The numbers of classes and of channels are the data set's, whatever the model.
    """
    for key in DECIDED & model_args.keys():
        raise ScalelabError(f"model '{model}': '{key}' is not a model argument here: the data set decides it")
    if not userfile.is_reference(model):
        for key in BEGINNINGS & model_args.keys():
            raise ScalelabError(
                f"model '{model}': '{key}' is not a model argument here: models begin untrained, or with --weights FILE"
            )
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    valid = [name for name, p in parameters.items() if p.kind is not p.POSITIONAL_ONLY and name not in DECIDED]
    for key in model_args:
        if key not in valid:
            listed = f"valid: {', '.join(valid)}" if valid else "it takes none"
            raise ScalelabError(f"model '{model}' takes no argument '{key}'{nearest(key, valid)}; {listed}")


def _find(name: str) -> tuple[Builder, Callable[..., Any]]:
    """The builder for ``name``, and the function whose signature says which arguments it takes. Raises ScalelabError."""
    if userfile.is_reference(name):
        function = userfile.load_symbol(name, "model")
        return lambda num_classes, shape, **model_args: function(num_classes, **model_args), function
    if name in MODELS:
        return MODELS[name].build, MODELS[name].build
    library, _, rest = name.partition(":")
    if library in LIBRARIES and rest:
        names = LIBRARIES[library].names()
        if rest not in names:
            close = difflib.get_close_matches(rest, names, n=5, cutoff=0.5)
            hint = f"; nearest: {', '.join(f'{library}:{n}' for n in close)}" if close else ""
            raise ScalelabError(f"unknown model '{name}': {library} has {len(names)} models, none called '{rest}'{hint}")
        builder = LIBRARIES[library].builder(rest)
        return builder, builder
    valid = [*MODELS, "torchvision:NAME", "timm:NAME", "path/to/file.py:function"]
    raise ScalelabError(f"unknown model '{name}'{nearest(name, MODELS)}; valid: {', '.join(valid)}")
