"""CIFAR-10 (Krizhevsky 2009): the official archive, its folder, or Parquet in the hub's layout; downloaded when absent."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from scalelab.data import cache, cifar10_official, download, parquet
from scalelab.data.dataset import Arrays, Dataset, Progress, from_arrays, silent
from scalelab.errors import ScalelabError
from scalelab.spec import Spec

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
DEFAULT = "data/cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
"""Mean and standard deviation of the official training images: constants, so that no subset or copy changes the inputs."""


def load(spec: Spec, progress: Progress = silent, url: str = URL, md5: str = MD5) -> Dataset:
    """50,000 training and 10,000 test images, uint8 [N, 32, 32, 3], from ``spec.data_dir`` (default data/cifar10).

    The folder may hold the archive, the extracted folder, or train*.parquet and test*.parquet; or be one of the
    first two itself. Where it is missing or empty the archive is downloaded from ``url``, checked against ``md5``.
    Raises ScalelabError for whatever is missing, damaged or something else.
    """
    given = Path(spec.data_dir or DEFAULT).expanduser()
    path = _find(given)
    if path is None:
        path = download.fetch(url, given / ARCHIVE, md5, progress, missing=f"data folder {str(given)!r} holds no CIFAR-10")
    if path.is_file():
        arrays = _cached([path], f"archive-{md5}", lambda: cifar10_official.read_archive(path, md5, progress), progress)
    elif sorted(path.glob("train*.parquet")):
        parts = {part: parquet.files(path, part) for part in ("train", "test")}
        sources = [file for files in parts.values() for file in files]
        arrays = _cached(sources, f"parquet-{version('pillow')}", lambda: parquet.read(parts, len(CLASSES), progress), progress)
    else:
        sources = cifar10_official.batch_files(path)
        arrays = _cached(sources, "folder", lambda: cifar10_official.read_folder(path, progress), progress)
    return from_arrays("cifar10", arrays, CLASSES, "crop+flip", STATISTICS)


def _cached(sources: list[Path], kind: str, build: cache.Build, progress: Progress) -> Arrays:
    return cache.cached("cifar10", f"cifar10-1-{kind}", sources, build, progress)


def _find(given: Path) -> Path | None:
    """The archive, the folder of batches or the folder of Parquet files at ``given``; None where it is missing or empty.

    Raises ScalelabError where there is something, and none of them.
    """
    if given.is_file():
        return given
    try:
        names = [entry.name for entry in sorted(given.iterdir()) if not entry.name.startswith(".")]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ScalelabError(f"data folder {str(given)!r} cannot be read: {error.strerror}") from None
    if any(name.endswith(".parquet") and name.startswith(("train", "test")) for name in names):
        parquet.files(given, "train")  # says which half is missing
        return given
    if "data_batch_1" in names or given.name == FOLDER:
        return given
    for name in (FOLDER, ARCHIVE):
        if name in names:
            return given / name
    if not names:
        return None
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    raise ScalelabError(
        f"data folder {str(given)!r} holds no CIFAR-10 but {shown}; it should hold {ARCHIVE}, {FOLDER} or "
        f"train*.parquet and test*.parquet, or be empty for a download"
    )
