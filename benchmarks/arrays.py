"""CIFAR-10 as arrays on the disk, so that decoding is no part of any contender's time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scalelab.data import parquet
from scalelab.errors import ScalelabError


def decode(data_dir: Path, folder: Path) -> int:
    """Write images.npy, uint8 [N, 32, 32, 3], and labels.npy, int64 [N]; the number of images.

    ``data_dir`` holds train*.parquet in the hub's layout. Raises ScalelabError.
    """
    if not data_dir.is_dir():
        raise ScalelabError(f"--data-dir {str(data_dir)!r}: no such folder; give the one that holds CIFAR-10's train*.parquet")
    arrays = parquet.read({"train": parquet.files(data_dir, "train")}, 10, lambda text: None)
    images, labels = arrays["train_images"], arrays["train_labels"]
    if images.shape[1:] != (32, 32, 3):
        raise ScalelabError(f"--data-dir {str(data_dir)!r}: its images are {images.shape[1:]}, not CIFAR-10's 32x32x3")
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels.astype(np.int64))
    return len(labels)
