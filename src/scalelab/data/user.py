"""The user's own data: a function that returns ((train_images, train_labels), (test_images, test_labels))."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from scalelab import userfile
from scalelab.data.dataset import Arrays, Dataset, Progress, from_arrays
from scalelab.errors import ScalelabError
from scalelab.spec import Spec

EXPECTED = "((train_images, train_labels), (test_images, test_labels))"


def load(spec: Spec, progress: Progress) -> Dataset:
    """What ``spec.data`` (file.py:function) returns: images uint8 [N, C, H, W] or clips [N, T, C, H, W], labels int64 [N], numpy or torch.

    There are as many classes as the largest label says. Raises ScalelabError for whatever is wrong with it.
    """
    function = userfile.load_symbol(spec.data, "data")
    where = f"data '{spec.data}'"
    with userfile.blame(f"{where} raises"):
        result = function()
    arrays: Arrays = {}
    for part, pair in zip(("train", "test"), _pair(result, where, EXPECTED), strict=True):
        images, labels = _pair(pair, where, f"({part}_images, {part}_labels) in {EXPECTED}")
        arrays[f"{part}_images"] = _images(_array(images, f"{where}: {part}_images"), f"{where}: {part}_images")
        arrays[f"{part}_labels"] = _labels(_array(labels, f"{where}: {part}_labels"), f"{where}: {part}_labels")
        n_images, n_labels = len(arrays[f"{part}_images"]), len(arrays[f"{part}_labels"])
        if n_images != n_labels:
            raise ScalelabError(f"{where}: {n_images} {part} images but {n_labels} labels; each image needs one")
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        shapes = [_chw(arrays[f"{part}_images"]) for part in ("train", "test")]
        raise ScalelabError(f"{where}: training images are {shapes[0]} and test images {shapes[1]} (C, H, W); they must be alike")
    num_classes = int(arrays["train_labels"].max()) + 1
    if (worst := int(arrays["test_labels"].max())) >= num_classes:
        raise ScalelabError(f"{where}: a test label is {worst}, but the training labels only go to {num_classes - 1}")
    if num_classes > len(arrays["train_labels"]):
        raise ScalelabError(
            f"{where}: a label is {num_classes - 1}, but there are {len(arrays['train_labels'])} training samples in all"
        )
    if num_classes < 2:
        raise ScalelabError(f"{where}: every training label is 0; a classifier needs at least two classes")
    return from_arrays(spec.data, arrays, tuple(str(k) for k in range(num_classes)), "none")


def _chw(images: np.ndarray) -> tuple[int, ...]:
    _, *frames, height, width, channels = images.shape
    return (*frames, channels, height, width)


def _pair(value: Any, where: str, expected: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        found = f"{len(value)} values" if isinstance(value, tuple | list) else type(value).__name__
        raise ScalelabError(f"{where} must return {expected}, not {found}")
    return value[0], value[1]


def _array(value: Any, where: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise ScalelabError(f"{where} must be a numpy array or a torch tensor, not {type(value).__name__}")
    return value


def _images(images: np.ndarray, where: str) -> np.ndarray:
    """uint8 [N, C, H, W] as contiguous [N, H, W, C]; clips [N, T, C, H, W] as [N, T, H, W, C]."""
    if images.dtype != np.uint8:
        raise ScalelabError(f"{where} must be uint8 (0 to 255), not {images.dtype}; scaling to floats is done here")
    if images.ndim not in (4, 5):
        raise ScalelabError(
            f"{where} must have the axes [N, C, H, W], or of clips [N, T, C, H, W], not the shape {list(images.shape)}"
        )
    if 0 in images.shape:
        raise ScalelabError(f"{where} is empty: its shape is {list(images.shape)}")
    return np.ascontiguousarray(np.moveaxis(images, -3, -1))


def _labels(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.dtype != np.int64:
        raise ScalelabError(f"{where} must be int64, not {labels.dtype}; .astype('int64') makes them so")
    if labels.ndim != 1:
        raise ScalelabError(f"{where} must have the one axis [N], not the shape {list(labels.shape)}")
    if len(labels) == 0:
        raise ScalelabError(f"{where} is empty")
    if labels.min() < 0:
        row = int(labels.argmin())
        raise ScalelabError(f"{where}: row {row} is {labels[row]}; classes are numbered from 0")
    return np.ascontiguousarray(labels)
