"""torchvision's and timm's models. Both are imported only when asked for: each costs one to two seconds."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from scalelab.errors import ScalelabError, nearest
from scalelab.models.odd import ODD
from scalelab.models.shapes import Shape


@dataclass(frozen=True)
class Library:
    """names: every image classifier it has; builder: name -> function of (num_classes, shape, **model_args)."""

    names: Callable[[], list[str]]
    builder: Callable[[str], Callable[..., nn.Module]]


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))


def _torchvision(name: str) -> Callable[..., nn.Module]:
    def build(num_classes: int, shape: Shape, **model_args: Any) -> nn.Module:
        if shape[0] != 3:
            raise ScalelabError(
                f"torchvision:{name} takes images of 3 channels, and these have {shape[0]}; "
                "the models without a library's name (basic_cnn, resnet50) and timm's take any number"
            )
        return original(name, num_classes, model_args)

    return build


def original(name: str, num_classes: int, model_args: dict[str, Any]) -> nn.Module:
    """torchvision's model ``name`` for images of 3 channels. Raises ScalelabError for an argument that it does not take."""
    from torchvision.models import get_model_builder

    builder = get_model_builder(name)
    _check_known(name, builder, model_args)
    given = {"num_classes": num_classes, **AUXILIARY.get(name, {}), **model_args}
    model: nn.Module = builder(weights=None, **given)
    return model


def _check_known(name: str, builder: Callable[..., Any], model_args: dict[str, Any]) -> None:
    """Raises ScalelabError for an argument that nothing in the model's module names: some classes swallow any."""
    module = sys.modules[builder.__module__]
    known = {
        key for thing in vars(module).values() if inspect.isroutine(thing) or inspect.isclass(thing) for key in _parameters(thing)
    }
    for key in model_args:
        if key not in known:
            raise ScalelabError(f"model 'torchvision:{name}' takes no argument '{key}'{nearest(key, known)}")


def _parameters(function: Any) -> list[str]:
    try:
        return [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    except (TypeError, ValueError):  # written in C
        return []


AUXILIARY: dict[str, dict[str, Any]] = {
    # Extra heads make forward return a tuple while training; an unsaid init_weights warns.
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def _timm_names() -> list[str]:
    import timm

    return list(timm.list_models())


def _timm(name: str) -> Callable[..., nn.Module]:
    def build(num_classes: int, shape: Shape, **model_args: Any) -> nn.Module:
        import timm

        given = {"num_classes": num_classes, "in_chans": shape[0], **model_args}
        model: nn.Module = timm.create_model(name, pretrained=False, **given)
        return model

    return build


def _odd_names() -> list[str]:
    return list(ODD)


ODDITIES = Library(_odd_names, ODD.__getitem__)
TORCHVISION = Library(_torchvision_names, _torchvision)
TIMM = Library(_timm_names, _timm)
