"""Published data sets: the official files, an extracted folder of them, or Parquet in the hub's layout; downloaded when absent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scalelab.data import cache, download, parquet
from scalelab.data.dataset import Arrays, Augment, Dataset, Progress, Statistics, from_arrays
from scalelab.errors import ScalelabError
from scalelab.spec import Spec


@dataclass(frozen=True)
class Official:
    """A file on the data set's home page."""

    url: str
    md5: str
    name: str

    def check(self, path: Path) -> None:
        """Raises ScalelabError where ``path`` does not hold these bytes."""
        if (found := md5_of(path)) != self.md5:
            raise ScalelabError(
                f"{path}: its MD5 is {found}, the official file's {self.md5}: it is truncated ({path.stat().st_size} bytes) "
                f"or something else; delete it, and it is downloaded again"
            )


@dataclass(frozen=True)
class Known:
    """A published data set. ``statistics`` are those of the official training images: constants, so that no copy changes the inputs."""

    name: str
    title: str
    classes: tuple[str, ...]
    statistics: Statistics
    augment: Augment
    official: tuple[Official, ...]
    read: Callable[[list[Path]], Arrays]
    """of the official files, checked, in their order; raises ScalelabError"""
    extracted: str | None = None
    """name of the folder that the official archive holds"""
    members: tuple[str, ...] = ()
    """files of that folder"""
    read_extracted: Callable[[Path], Arrays] | None = None
    layout: parquet.Layout = parquet.HUB

    @property
    def default(self) -> str:
        """The folder where nothing else is said."""
        return f"data/{self.name}"


def load(known: Known, spec: Spec, progress: Progress) -> Dataset:
    """The images of ``known``, from ``spec.data_dir``, which may hold any of the three forms, or be an official file or extracted folder.

    Where it is missing or empty the official files are downloaded and checked. Raises ScalelabError for whatever is missing, damaged
    or something else.
    """
    given = Path(spec.data_dir or known.default).expanduser()
    kind, path = _find(known, given)
    arrays = KINDS[kind](known, path, progress)
    return from_arrays(known.name, arrays, known.classes, known.augment, known.statistics)


def _from_official(known: Known, path: Path, progress: Progress) -> Arrays:
    """``path``: the official file, or the folder of the official files; those that are missing are downloaded."""
    folder, paths = path.parent if path.is_file() else path, []
    for official in known.official:
        file = path if path.is_file() and len(known.official) == 1 else folder / official.name
        if not file.exists():
            file = download.fetch(
                official.url, file, official.md5, progress, missing=f"data folder {str(folder)!r} holds no {known.title}"
            )
        paths.append(file)

    def build() -> Arrays:
        for official, file in zip(known.official, paths, strict=True):
            progress(f"checking {file}")
            official.check(file)
        progress(f"reading {', '.join(file.name for file in paths)}")
        return known.read(paths)

    return _cached(known, paths, f"official-{'-'.join(o.md5 for o in known.official)}", build, progress)


def _from_extracted(known: Known, path: Path, progress: Progress) -> Arrays:
    assert known.read_extracted is not None
    read, files = known.read_extracted, [path / name for name in known.members]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ScalelabError(f"{path}: holds no {', '.join(missing)}; extract the official archive again")
    progress(f"reading {path}")
    return _cached(known, files, "folder", lambda: read(path), progress)


def _from_parquet(known: Known, path: Path, progress: Progress) -> Arrays:
    parts = {part: parquet.files(path, part) for part in ("train", "test")}
    sources = [file for files in parts.values() for file in files]
    read = lambda: parquet.read(parts, len(known.classes), known.layout, progress)  # noqa: E731
    return _cached(known, sources, f"parquet-{version('pillow')}", read, progress)


KINDS: dict[str, Callable[[Known, Path, Progress], Arrays]] = {
    "official": _from_official,
    "extracted": _from_extracted,
    "parquet": _from_parquet,
}


def _cached(known: Known, sources: list[Path], kind: str, build: cache.Build, progress: Progress) -> Arrays:
    return cache.cached(known.name, f"{known.name}-1-{kind}", sources, build, progress)


def _find(known: Known, given: Path) -> tuple[str, Path]:
    """Which form ``given`` holds, and where. Raises ScalelabError where there is something, and none of them."""
    if given.is_file():
        return "official", given
    try:
        names = [entry.name for entry in sorted(given.iterdir()) if not entry.name.startswith(".")]
    except FileNotFoundError:
        return "official", given
    except OSError as error:
        raise ScalelabError(f"data folder {str(given)!r} cannot be read: {error.strerror}") from None
    if any(name.endswith(".parquet") and name.startswith(("train", "test")) for name in names):
        return "parquet", given
    if known.extracted is not None:
        if given.name == known.extracted or known.members[0] in names:
            return "extracted", given
        if known.extracted in names:
            return "extracted", given / known.extracted
    official = [o.name for o in known.official]
    if not names or any(name in names for name in official):
        return "official", given
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    forms = [" and ".join(official), *([known.extracted] if known.extracted else [])]
    raise ScalelabError(
        f"data folder {str(given)!r} holds no {known.title} but {shown}; it should hold {', '.join(forms)} or "
        f"train*.parquet and test*.parquet, or be empty for a download"
    )


def md5_of(path: Path) -> str:
    """MD5 of a file, hexadecimal. Raises ScalelabError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise ScalelabError(f"{path}: cannot be read: {error.strerror}") from None
