"""Street View House Numbers, cropped digits (Netzer et al. 2011): 73,257 training and 26,032 test images, 32×32."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from scalelab import userfile
from scalelab.data import known
from scalelab.data.dataset import Arrays
from scalelab.data.known import Known, Official
from scalelab.errors import ScalelabError

HOME = "http://ufldl.stanford.edu/housenumbers/"


def read(paths: list[Path]) -> Arrays:
    """The arrays of train_32x32.mat and test_32x32.mat. Raises ScalelabError."""
    arrays: Arrays = {}
    for part, path in zip(("train", "test"), paths, strict=True):
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = _matrices(path)
    return arrays


def _matrices(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """X, uint8 [32, 32, 3, N], as [N, 32, 32, 3]; y, where 10 stands for the digit 0. Raises ScalelabError."""
    from scipy.io import loadmat  # here: it takes a while, and the cache usually answers instead

    again = "delete it, and it is downloaded again"
    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # a damaged file can raise nearly anything
        raise ScalelabError(f"{path}: is no MATLAB file of SVHN ({userfile.one_line(error)}); {again}") from None
    images, labels = content.get("X"), content.get("y")
    if images is None or labels is None or images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.ndim != 4:
        raise ScalelabError(f"{path}: must hold X, uint8 [32, 32, 3, N], and y; {again}")
    labels = np.asarray(labels, dtype=np.int64).reshape(-1)
    if len(labels) != images.shape[3] or len(labels) == 0 or labels.min() < 1 or labels.max() > 10:
        raise ScalelabError(f"{path}: y must hold a label from 1 to 10 for each of the {images.shape[3]} images; {again}")
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels % 10


SVHN = Known(
    name="svhn",
    title="SVHN",
    classes=tuple(str(k) for k in range(10)),
    statistics=((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    augment="crop",
    official=(
        Official(f"{HOME}train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", "train_32x32.mat"),
        Official(f"{HOME}test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", "test_32x32.mat"),
    ),
    read=read,
)
"""the digits are no mirror images of one another: never flipped"""

load = functools.partial(known.load, SVHN)
