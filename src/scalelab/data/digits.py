"""scikit-learn's 1,797 handwritten digits, 8×8: real images that need no download."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from scalelab.data import cache
from scalelab.data.dataset import Arrays, Dataset, Progress, from_arrays
from scalelab.spec import Spec

TEST = 360
"""A fifth, as in the field's habit; 1,437 remain to train on."""


def load(spec: Spec, progress: Progress) -> Dataset:
    """1,437 training and 360 test images, uint8 [N, 8, 8, 1]; the split never changes."""
    arrays = cache.cached("digits", f"digits-1-{version('scikit-learn')}", (), _read, progress)
    return from_arrays("digits", arrays, tuple(str(k) for k in range(10)), "none")


def _read() -> Arrays:
    """The digits scaled from 0..16 to 0..255, in an order that spreads every class evenly over both parts."""
    from sklearn.datasets import load_digits  # here: it costs a second, and the cache usually answers instead

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int64)
    # Stratified: rank each sample by a random position within its class, then interleave the classes.
    generator = np.random.Generator(np.random.PCG64(1797))
    position = np.empty(len(labels))
    for k in range(10):
        mine = np.flatnonzero(labels == k)
        position[mine] = (generator.permutation(len(mine)) + generator.random(len(mine))) / len(mine)
    order = np.argsort(position, kind="stable")
    images, labels = images[order], labels[order]
    return {
        "train_images": images[:-TEST],
        "train_labels": labels[:-TEST],
        "test_images": images[-TEST:],
        "test_labels": labels[-TEST:],
    }
