"""What a model begins with besides its seed: the weights of ``--weights``, and what ``--freeze`` takes out of the training."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from scalelab import models
from scalelab.errors import ScalelabError
from scalelab.models import weights
from scalelab.spec import Spec
from scalelab.worker import checkpoint


def begin(spec: Spec, model: nn.Module, num_classes: int, shape: tuple[int, ...]) -> list[str]:
    """Give the model, in place, what the spec says it begins with; what a reader of the record should know of it.

    A resumed run's weights are its checkpoint's. Raises ScalelabError in one line for a file that can't be read or does not fit, and for
    patterns that match nothing or all.
    """
    told = models.told(model)
    if spec.weights is not None and spec.resume is None:
        found = _matched(spec, model, num_classes, shape)
        weights.take(model, found)
        if found.left:
            told.append(
                f"the head ({', '.join(found.left)}) begins with new values: the weights are for {found.classes} classes, "
                f"the data has {num_classes}"
            )
        if found.dropped:
            told.append(f"an extra head of the weights is not used: {len(found.dropped)} tensors")
    if spec.freeze is not None:
        told.append(models.freeze(model, spec.freeze))
    return told


def origin(spec: Spec) -> list[str]:
    """Which file the weights are from, and what it hashes to: a line, or none. Raises ScalelabError for a damaged checkpoint."""
    if spec.weights is None or spec.resume is not None:
        return []
    file, expected = _file(Path(spec.weights))
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if expected not in (None, digest):
        raise ScalelabError(f"--weights {file}: is damaged: its checksum is not that of the checkpoint that the run wrote")
    return [f"initial weights: {file} (sha256 {digest[:16]}…)"]


def _matched(spec: Spec, model: nn.Module, num_classes: int, shape: tuple[int, ...]) -> weights.Match:
    assert spec.weights is not None
    hint = "; for images up to 64 pixels the model is a variant of the published one, which --resize 224 gives"
    varied = models.is_variant(spec.model, shape)
    return weights.match(model, weights.read(_file(Path(spec.weights))[0]), num_classes, spec.weights, hint if varied else "")


def _file(path: Path) -> tuple[Path, str | None]:
    """The file of weights that ``path`` means: itself, or the best checkpoint of a run's folder, whose SHA-256 is known.

    Raises ScalelabError for a folder without one.
    """
    if not path.is_dir():
        return path, None
    kept = checkpoint.best(path)
    if kept is None:
        raise ScalelabError(f"--weights {path}: is a folder without a checkpoint; name a file, or a run's folder")
    return kept
