"""CIFAR's official files: an archive of pickles, read without ever running what a pickle may ask for.

Each batch is a dict of b"data", uint8 [N, 3072] (channel, row, column), and of labels, a list of N numbers under a key of its own.
"""

from __future__ import annotations

import pickle  # only through the restricted Unpickler below
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from scalelab import userfile
from scalelab.data.dataset import Arrays
from scalelab.errors import ScalelabError


@dataclass(frozen=True)
class Batches:
    """The batches of a data set: their names, the key of the labels, and how many classes there are."""

    title: str
    train: tuple[str, ...]
    test: str
    labels: bytes
    num_classes: int

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.train, self.test)

    def read_archive(self, paths: list[Path]) -> Arrays:
        """The arrays of the archive, the only path. Raises ScalelabError where it is damaged or another."""
        (path,) = paths
        batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        try:
            with tarfile.open(path, "r:gz") as archive:
                for member in archive:
                    name = member.name.rsplit("/", 1)[-1]
                    if name in self.names and (file := archive.extractfile(member)) is not None:
                        batches[name] = _batch(self, file, f"{path}: {name}")
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            what = userfile.one_line(error)
            raise ScalelabError(f"{path}: is damaged or no archive ({what}); delete it, and it is downloaded again") from None
        if missing := [name for name in self.names if name not in batches]:
            raise ScalelabError(f"{path}: holds no {', '.join(missing)}; delete it, and the official archive is downloaded")
        return self._join(batches)

    def read_folder(self, folder: Path) -> Arrays:
        """The arrays of the extracted archive in ``folder``, which holds all batches. Raises ScalelabError."""
        batches = {}
        for path in (folder / name for name in self.names):
            try:
                with open(path, "rb") as file:
                    batches[path.name] = _batch(self, file, str(path))
            except OSError as error:
                raise ScalelabError(f"{path}: cannot be read: {error.strerror}") from None
        return self._join(batches)

    def _join(self, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> Arrays:
        train = [batches[name] for name in self.train]
        return {
            "train_images": np.concatenate([images for images, _ in train]),
            "train_labels": np.concatenate([labels for _, labels in train]),
            "test_images": batches[self.test][0],
            "test_labels": batches[self.test][1],
        }


_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("__builtin__", "bytes"): lambda: b"",  # how an old pickle writes no bytes
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into an old pickle; only this one codec, none that could do more."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Builds numpy arrays and Python's plain types; whatever else a pickle names is refused before it is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs; it is not run")
        return _ALLOWED[module, name]


def _batch(batches: Batches, file: IO[bytes], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] and labels int64 [N] of one pickled batch. Raises ScalelabError."""
    try:
        content = _ArraysOnly(file, encoding="bytes").load()
    except (OSError, EOFError, zlib.error):
        if not isinstance(file, tarfile.ExFileObject):
            raise ScalelabError(f"{where}: is truncated; extract the official archive again") from None
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        what = userfile.one_line(error)
        raise ScalelabError(f"{where}: is not a batch of {batches.title}: {what}; get the official archive again") from None
    try:
        data, labels = content[b"data"], np.asarray(content[batches.labels], dtype=np.int64)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise ScalelabError(
            f"{where}: holds no 'data' and '{batches.labels.decode()}': it is not {batches.title}'s Python version"
        ) from None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,) or labels.shape != data.shape[:1]:
        raise ScalelabError(f"{where}: 'data' must be uint8 [N, 3072] with N labels; get the official archive again")
    if len(labels) == 0:
        raise ScalelabError(f"{where}: is empty; get the official archive again")
    if labels.min() < 0 or labels.max() >= batches.num_classes:
        row = int(np.flatnonzero((labels < 0) | (labels >= batches.num_classes))[0])
        raise ScalelabError(
            f"{where}: the label of row {row} is {labels[row]}; {batches.title}'s are 0 to {batches.num_classes - 1}"
        )
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
