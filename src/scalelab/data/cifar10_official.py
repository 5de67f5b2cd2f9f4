"""CIFAR-10's official files: an archive of pickles, read without ever running what a pickle may ask for.

Each batch is a dict of b"data", uint8 [N, 3072] (channel, row, column), and b"labels", a list of N numbers.
"""

from __future__ import annotations

import hashlib
import pickle  # only through the restricted Unpickler below
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from scalelab import userfile
from scalelab.data.dataset import Arrays, Progress
from scalelab.errors import ScalelabError

TRAIN = tuple(f"data_batch_{k}" for k in range(1, 6))
TEST = "test_batch"
NUM_CLASSES = 10


def read_archive(path: Path, md5: str, progress: Progress) -> Arrays:
    """The arrays of the archive at ``path``, read in place. Raises ScalelabError where it is damaged or another."""
    progress(f"checking {path}")
    if (found := md5_of(path)) != md5:
        size = path.stat().st_size
        raise ScalelabError(
            f"{path}: its MD5 is {found}, the official archive's {md5}: it is truncated ({size} bytes) or something else; "
            f"delete it, and it is downloaded again"
        )
    progress(f"reading {path.name}")
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if name in (*TRAIN, TEST) and (file := archive.extractfile(member)) is not None:
                    batches[name] = _batch(file, f"{path}: {name}")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        what = userfile.one_line(error)
        raise ScalelabError(f"{path}: is damaged or no archive ({what}); delete it, and it is downloaded again") from None
    if missing := [name for name in (*TRAIN, TEST) if name not in batches]:
        raise ScalelabError(f"{path}: holds no {', '.join(missing)}; delete it, and the official archive is downloaded")
    return _join(batches)


def batch_files(folder: Path) -> list[Path]:
    """The six batches in the extracted ``folder``. Raises ScalelabError naming the missing ones."""
    files = [folder / name for name in (*TRAIN, TEST)]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ScalelabError(f"{folder}: holds no {', '.join(missing)}; extract the official archive again")
    return files


def read_folder(folder: Path, progress: Progress) -> Arrays:
    """The arrays of the extracted archive in ``folder``. Raises ScalelabError."""
    progress(f"reading {folder}")
    batches = {}
    for path in batch_files(folder):
        try:
            with open(path, "rb") as file:
                batches[path.name] = _batch(file, str(path))
        except OSError as error:
            raise ScalelabError(f"{path}: cannot be read: {error.strerror}") from None
    return _join(batches)


def md5_of(path: Path) -> str:
    """MD5 of a file, hexadecimal. Raises ScalelabError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise ScalelabError(f"{path}: cannot be read: {error.strerror}") from None


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


def _batch(file: IO[bytes], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 32, 32, 3] and labels int64 [N] of one pickled batch. Raises ScalelabError."""
    try:
        content = _ArraysOnly(file, encoding="bytes").load()
    except (OSError, EOFError, zlib.error):
        if not isinstance(file, tarfile.ExFileObject):
            raise ScalelabError(f"{where}: is truncated; extract the official archive again") from None
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        what = userfile.one_line(error)
        raise ScalelabError(f"{where}: is not a batch of CIFAR-10: {what}; get the official archive again") from None
    try:
        data, labels = content[b"data"], np.asarray(content[b"labels"], dtype=np.int64)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise ScalelabError(f"{where}: holds no 'data' and 'labels': it is not CIFAR-10's Python version") from None
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,) or labels.shape != data.shape[:1]:
        raise ScalelabError(f"{where}: 'data' must be uint8 [N, 3072] with N labels; get the official archive again")
    if len(labels) == 0:
        raise ScalelabError(f"{where}: is empty; get the official archive again")
    if labels.min() < 0 or labels.max() >= NUM_CLASSES:
        row = int(np.flatnonzero((labels < 0) | (labels >= NUM_CLASSES))[0])
        raise ScalelabError(f"{where}: the label of row {row} is {labels[row]}; CIFAR-10's are 0 to 9")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _join(batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> Arrays:
    train = [batches[name] for name in TRAIN]
    return {
        "train_images": np.concatenate([images for images, _ in train]),
        "train_labels": np.concatenate([labels for _, labels in train]),
        "test_images": batches[TEST][0],
        "test_labels": batches[TEST][1],
    }
