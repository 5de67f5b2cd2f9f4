"""What is said to win back the accuracy that a large batch loses: each remedy as fields of the spec, with its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Values = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a remedy is fitted to. ``base`` is the batch that the learning rates are meant for."""

    batch: int
    base: int
    epochs: int
    warmup_epochs: float
    """of the remedies that warm up"""
    label_smoothing: float
    """of the remedies that smooth labels"""
    lars_lr: float
    lamb_lr: float


@dataclass(frozen=True)
class Remedy:
    """A row of the table: what it changes, in words, and in the spec."""

    says: str
    source: str
    values: Callable[[Setting], Values]
    by_epochs: bool = False
    """whether it is made of epochs, so that it means nothing in a training of a few steps"""


def _scaled(rule: str, setting: Setting) -> Values:
    """At the base batch there is nothing to scale: then the training is that without the remedy."""
    return {"lr_scaling": rule, "base_batch": setting.base} if setting.batch != setting.base else {}


def _warm_up(setting: Setting) -> Values:
    return {**_scaled("linear", setting), "warmup_epochs": setting.warmup_epochs}


def _lars(setting: Setting) -> Values:
    return {**_scaled("sqrt", setting), "optimizer": "lars", "lr": setting.lars_lr, "warmup_epochs": setting.warmup_epochs}


def _lamb(setting: Setting) -> Values:
    return {**_scaled("sqrt", setting), "optimizer": "lamb", "lr": setting.lamb_lr, "warmup_epochs": setting.warmup_epochs}


def _growing(setting: Setting) -> Values:
    """A third of the epochs with the base batch, a third with the geometric mean of both, the rest with the batch."""
    base, batch, epochs = setting.base, setting.batch, setting.epochs
    if batch == base:
        return {}
    between = round((base * batch) ** 0.5 / base) * base
    second, third = max(1, round(epochs / 3)), max(2, round(2 * epochs / 3))
    parts = (
        [(0, base), (1, batch)] if epochs == 2 else [(0, base), *([(second, between)] if between != base else []), (third, batch)]
    )
    return {"batch": None, "batch_schedule": ",".join(f"{epoch}:{size}" for epoch, size in parts), "schedule": "constant"}


def _smoothed(setting: Setting) -> Values:
    return {"label_smoothing": setting.label_smoothing}


REMEDIES: dict[str, Remedy] = {
    "none": Remedy("the base batch's settings", "", lambda setting: {}),
    "linear": Remedy(
        "learning rate in proportion to the batch", "Goyal et al. 2017, section 2.1", lambda setting: _scaled("linear", setting)
    ),
    "sqrt": Remedy(
        "learning rate in proportion to its square root", "Krizhevsky 2014; Hoffer et al. 2017",
        lambda setting: _scaled("sqrt", setting),
    ),
    "warm-up": Remedy("linear, reached by a linear warm-up", "Goyal et al. 2017, section 2.2", _warm_up),
    "lars": Remedy("LARS, its rate by the square root, warm-up", "You, Gitman & Ginsburg 2017", _lars),
    "lamb": Remedy("LAMB, its rate by the square root, warm-up", "You et al. 2020", _lamb),
    "batch-schedule": Remedy(
        "the base batch first, growing to the batch in thirds, at the base's constant rate", "Smith et al. 2018", _growing,
        by_epochs=True,
    ),
    "label-smoothing": Remedy("a share of the target spread over all classes", "Szegedy et al. 2016", _smoothed),
    "combined": Remedy(
        "LARS, its rate by the square root, warm-up and label smoothing", "as Mikami et al. 2018 combine them",
        lambda setting: {**_lars(setting), **_smoothed(setting)},
    ),
}  # fmt: skip
