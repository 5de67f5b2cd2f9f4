"""``folder:PATH``: a folder for each class, holding images, or a folder of frames for each clip."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from scalelab.data.assemble import Found, Labelled, assemble, refuse_one_class
from scalelab.data.dataset import Dataset, Progress
from scalelab.data.sources import Files, interleaved
from scalelab.errors import ScalelabError
from scalelab.spec import Spec

TRAIN, TESTS = "train", ("test", "val", "valid", "validation")
IMAGES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif", ".tga")
)
"""extensions that are taken for images; other files are left out, and that is noted"""
HELD_OUT = 5
"""without a test folder, one of so many samples of each class is held out"""
LAYOUT = "it should hold train/CLASS/… and test/CLASS/… (or val), or CLASS/…"

Samples = dict[str, tuple[str, ...]]
"""by the name of an image or a clip: its path, or its frames' paths"""


@dataclass
class Scan:
    """What is met while a folder is walked."""

    ignored: list[str] = field(default_factory=list)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    clips: bool | None = None
    """whether samples are clips; None: none was seen yet"""


def load(spec: Spec, progress: Progress) -> Dataset:
    """The images, or clips of ``spec.frames`` frames, under the folder that ``spec.data`` names. RGB, uint8.

    Raises ScalelabError in one line: no such folder, one class, an empty class, images beside frame folders, a damaged image,
    images of different sizes without ``spec.resize``.
    """
    path = spec.data.partition(":")[2]
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise ScalelabError(f"data '{spec.data}': there is no folder {str(root)!r}; {LAYOUT}")
    scan = Scan()
    scan.digest.update(f"{root.resolve()}\0".encode(errors="surrogateescape"))
    train, test, notes = _parts(root, scan, spec.frames)
    refuse_one_class(spec.data, len(train))
    if scan.ignored:
        more = f" and {len(scan.ignored) - 1} more" if len(scan.ignored) > 1 else ""
        notes.append(f"files that are no images are left out: {scan.ignored[0]}{more}")
    frames = spec.frames if scan.clips else None
    key = f"folder-{version('pillow')}-{frames}-{scan.digest.hexdigest()[:32]}"
    first, second = (_labelled(part, list(train)) for part in (train, test))
    return assemble(Found(spec.data, first, second, tuple(train), key, "flip", frames, tuple(notes)), spec, progress)


def _parts(root: Path, scan: Scan, frames: int) -> tuple[dict[str, Samples], dict[str, Samples], list[str]]:
    """(training samples by class, test samples by class, notes). Raises ScalelabError."""
    names = _folders(root, scan)
    if not names:
        raise ScalelabError(f"data 'folder:{root}': no class folders there; {LAYOUT}")
    if TRAIN not in names:
        held = f"one in {HELD_OUT} samples of each class, by a hash of its name, is held out as the test set"
        return *_divided(_classes(root, scan, frames)), [f"no train and test folders: {held}"]
    part = next((name for name in TESTS if name in names), None)
    if part is None:
        raise ScalelabError(f"{root}: has a folder {TRAIN}, but none called {' or '.join(TESTS)} beside it")
    train, test = _classes(root / TRAIN, scan, frames), _classes(root / part, scan, frames)
    for folder, found in ((TRAIN, train), (part, test)):
        if not found:
            raise ScalelabError(f"{root / folder}: holds no class folders; {LAYOUT}")
    if unknown := [name for name in test if name not in train]:
        raise ScalelabError(f"{root / part}: the class '{unknown[0]}' is not in {root / TRAIN}: nothing can be learnt of it")
    return train, test, []


def _labelled(classes: dict[str, Samples], names: list[str]) -> Labelled:
    """The samples of all classes, taking turns."""
    samples = [sample for found in classes.values() for sample in found.values()]
    labels = np.repeat([names.index(name) for name in classes], [len(found) for found in classes.values()])
    order = list(interleaved(labels.tolist()))
    return Labelled(Files([samples[i] for i in order]), labels[order].astype(np.int64))


def _classes(folder: Path, scan: Scan, frames: int) -> dict[str, Samples]:
    """The samples of each class folder, classes and samples by name. Raises ScalelabError."""
    found = {}
    for name in _folders(folder, scan):
        samples = _samples(folder / name, scan, frames)
        if not samples:
            raise ScalelabError(f"{folder / name}: the class '{name}' is empty; put images there, or remove the folder")
        found[name] = samples
    return found


def _folders(folder: Path, scan: Scan) -> list[str]:
    """Names of the folders in ``folder``; files there belong to no class."""
    folders, files = _entries(folder, scan)
    if not folders and files:
        raise ScalelabError(f"{folder}: holds images, but no class folders; {LAYOUT}")
    for name in folders:
        if _written(name) != name:
            raise ScalelabError(
                f"{_written(str(folder))}: the name of the class '{_written(name)}' is not UTF-8; rename the folder"
            )
    return folders


def _samples(folder: Path, scan: Scan, frames: int) -> Samples:
    """The images in a class folder; or, of each folder in it, ``frames`` images evenly spaced over its frames."""
    folders, files = _entries(folder, scan)
    if not folders and not files:
        return {}
    clips = bool(folders)
    named = next((name for name in folders if _is_image(name)), None)
    if named and (files or scan.clips is False):
        raise ScalelabError(f"{folder / named}: is a folder, and named like an image; rename or remove it")
    if folders and files:
        raise ScalelabError(
            f"{folder}: holds images ({files[0]}) beside folders of frames ({folders[0]}); it must be one of the two"
        )
    if scan.clips not in (None, clips):
        raise ScalelabError(
            f"{folder}: holds {'clips' if clips else 'images'}, and other classes {'images' if clips else 'clips'}"
        )
    scan.clips = clips
    if not clips:
        return {name: (str(folder / name),) for name in files}
    samples = {}
    for name in folders:
        _, images = _entries(folder / name, scan)
        if not images:
            raise ScalelabError(f"{folder / name}: a clip without frames; put images there, or remove the folder")
        chosen = np.linspace(0, len(images) - 1, frames).round().astype(int)
        samples[name] = tuple(str(folder / name / images[i]) for i in chosen)
    return samples


def _entries(folder: Path, scan: Scan) -> tuple[list[str], list[str]]:
    """Names of the folders and of the images in ``folder``, sorted; hidden ones are not seen. What is met goes into ``scan``."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    folders.append(entry.name)
                elif not _is_image(entry.name):
                    scan.ignored.append(_written(entry.path))
                else:
                    files.append(entry.name)
                    stat = _stat(entry)
                    scan.digest.update(f"{entry.path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
    except OSError as error:
        raise ScalelabError(f"{folder}: cannot be read: {error.strerror}") from None
    return folders, files


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Raises ScalelabError: a link that leads back to a folder that holds it, or to itself."""
    try:
        is_folder = entry.is_dir()
    except OSError as error:
        raise ScalelabError(f"{_written(entry.path)}: cannot be read: {error.strerror}; remove it") from None
    if is_folder and entry.is_symlink() and Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve()):
        raise ScalelabError(f"{_written(entry.path)}: is a link to a folder that it lies in; remove it")
    return is_folder


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    """Of the image itself. Raises ScalelabError naming it: a link to nothing."""
    try:
        return entry.stat()
    except OSError as error:
        what = "is a link to a file that is not there" if entry.is_symlink() else f"cannot be read: {error.strerror}"
        raise ScalelabError(f"{_written(entry.path)}: {what}; replace or remove it") from None


def _written(name: str) -> str:
    """``name`` as a record can hold it, whatever bytes the file system has."""
    return name.encode(errors="replace").decode()


def _divided(classes: dict[str, Samples]) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """(training, test) samples of each class: those whose names have the smallest hashes are the test set, a fifth and at least one."""
    train, test = {}, {}
    for name, samples in classes.items():
        if len(samples) < 2:
            raise ScalelabError(
                f"the class '{name}' has one sample, {next(iter(samples))}: none can be held out; add some, or make train and test folders"
            )
        by_hash = sorted(samples, key=functools.partial(_hash, name))
        held = set(by_hash[: max(1, len(samples) // HELD_OUT)])
        train[name] = {own: paths for own, paths in samples.items() if own not in held}
        test[name] = {own: paths for own, paths in samples.items() if own in held}
    return train, test


def _hash(name: str, own: str) -> bytes:
    """Of the names of a class and of an image or clip in it, wherever the folder lies."""
    return hashlib.sha256(f"{name}/{own}".encode(errors="surrogateescape")).digest()
