"""Optimizers, and the learning rate as a function of the step."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from scalelab.errors import ScalelabError, unknown
from scalelab.spec import Spec


@dataclass(frozen=True)
class Optimizer:
    """``kind(params, **settings(spec))``.

    elementwise: an element's update looks at nothing but that element's own gradient and state, so that
    parameters may be cut anywhere between ranks; otherwise the optimizer needs whole tensors.
    """

    kind: Callable[..., torch.optim.Optimizer]
    settings: Callable[[Spec], dict[str, Any]]
    elementwise: bool

    def make(self, params: Iterable[Any], spec: Spec) -> torch.optim.Optimizer:
        """The optimizer of ``params`` (tensors or groups of them)."""
        return self.kind(params, **self.settings(spec))


# foreach: a third of the time of a loop where parameters are DTensors, and its bits don't depend on where a parameter
# is cut. fused would be 60 µs a step faster on a small model, but rounds otherwise at the ends of its vectors, and
# torch has no fused SGD for DTensors.
def _sgd(spec: Spec) -> dict[str, Any]:
    return {"lr": spec.lr, "momentum": spec.momentum, "weight_decay": spec.weight_decay, "foreach": True}


def _adam(spec: Spec) -> dict[str, Any]:
    return {"lr": spec.lr, "weight_decay": spec.weight_decay, "foreach": True}


def _lars(spec: Spec) -> dict[str, Any]:
    return {"lr": spec.lr, "momentum": spec.momentum, "weight_decay": spec.weight_decay, "always_adapt": True}


def _lamb(spec: Spec) -> dict[str, Any]:
    return {"lr": spec.lr, "weight_decay": spec.weight_decay, "always_adapt": True, "max_grad_norm": None}


def _layerwise(name: str) -> Callable[..., torch.optim.Optimizer]:
    """An optimizer of ``scalelab.optim.layerwise``; importing timm takes seconds, which only those who ask for it should pay."""

    def make(*args: Any, **settings: Any) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = getattr(importlib.import_module("scalelab.optim.layerwise"), name)(*args, **settings)
        return made

    return make


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(torch.optim.SGD, _sgd, elementwise=True),
    "adamw": Optimizer(torch.optim.AdamW, _adam, elementwise=True),
    # Factors its second moment over a tensor's rows and columns, and clips by a tensor's root mean square.
    "adafactor": Optimizer(torch.optim.Adafactor, _adam, elementwise=False),
    # Each tensor's step is scaled by the norms of its weights and of its gradient or update.
    "lars": Optimizer(_layerwise("Lars"), _lars, elementwise=False),
    "lamb": Optimizer(_layerwise("Lamb"), _lamb, elementwise=False),
}


def find(name: str) -> Optimizer:
    """The entry ``name`` of the registry. Raises ScalelabError listing the valid names."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]


def build(spec: Spec, params: Iterable[Any]) -> torch.optim.Optimizer:
    """``spec.optimizer`` over ``params``. Raises ScalelabError for an unknown name, or no parameters at all."""
    entry, params = find(spec.optimizer), list(params)
    if not params:
        raise ScalelabError(f"model '{spec.model}' has no parameters, so there is nothing to train")
    return entry.make(params, spec)
