"""Initial weights from a file: safetensors, or torch's own format with nothing but tensors in it (no pickled code runs)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from torch import Tensor, nn

from scalelab.errors import ScalelabError, nearest, unknown

Tensors = dict[str, Tensor]
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""keys under which training programs keep the weights"""
NESTED = 4
"""mappings that are looked through, one in the other"""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""what DDP, torch.compile and Lightning put before every name"""
OURS = "model/"
"""prefix of the model's tensors in a checkpoint of scalelab's; all others there are the optimizer's"""
EXTRA_HEADS = ("AuxLogits.", "aux1.", "aux2.")
"""heads for training that published weights of inception_v3 and googlenet have, and the models here have not"""
COUNTER = "num_batches_tracked"
"""what files from before torch 0.4 lack"""


@dataclass(frozen=True)
class Match:
    """What of a file a model takes: ``taken`` by name; ``left``: the names of the head, which the file has for ``classes`` classes."""

    taken: Tensors
    left: tuple[str, ...] = ()
    classes: int | None = None
    dropped: tuple[str, ...] = ()
    """names of the file's extra heads"""


def read(file: Path) -> Tensors:
    """The tensors of a model in ``file``, by the model's own names as far as wrappers are known; on the CPU.

    Raises ScalelabError: a file that cannot be read or is damaged, one that holds more than tensors, or none.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise unknown(f"kind of --weights {file}: suffix", file.suffix, READERS)
    try:
        found = reader(file)
    except OSError as error:
        raise ScalelabError(f"--weights {file}: cannot be read: {error.strerror or error}") from None
    except UnpicklingError as error:
        raise ScalelabError(f"--weights {file}: {_why(error, file)}") from None
    except Exception as error:  # damaged bytes make torch's reader raise whatever they happen to hit, a bare IndexError too
        raise ScalelabError(f"--weights {file}: {_damaged(error)}") from None
    return _unprefixed(_unwrapped(found, file))


def _safetensors(file: Path) -> Tensors:
    with safe_open(file, framework="pt") as opened:
        names = list(opened.keys())
        ours = [name for name in names if name.startswith(OURS)]
        return {name.removeprefix(OURS): opened.get_tensor(name) for name in ours or names}


def _torch(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


READERS: dict[str, Callable[[Path], Any]] = {".safetensors": _safetensors, ".pt": _torch, ".pth": _torch, ".bin": _torch}


def _why(error: UnpicklingError, file: Path) -> str:
    # torch's format since 1.6 is a whole archive; before, a bare pickle
    if is_zipfile(file) or "Unsupported global" in str(error):
        return "holds more than tensors, which are all that is loaded; save model.state_dict() alone"
    return _damaged(error)


def _damaged(error: Exception) -> str:
    return f"is damaged: {' '.join(str(error).split())[:160] or type(error).__name__}"


def _unwrapped(found: Any, file: Path) -> Tensors:
    """The mapping of names to tensors somewhere in ``found``. Raises ScalelabError where there is none."""
    for _ in range(NESTED):  # not for as long as there is one: a mapping may hold itself
        if not isinstance(found, Mapping) or not found:
            break
        if all(isinstance(value, Tensor) for value in found.values()):
            return {str(name): value for name, value in found.items()}
        found = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
    raise ScalelabError(f"--weights {file}: holds no names with tensors, nor has it them under {', '.join(WRAPPERS)}")


def _unprefixed(tensors: Tensors) -> Tensors:
    """Without what a wrapper put before all names."""
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def match(model: nn.Module, tensors: Tensors, num_classes: int, file: str, hint: str = "") -> Match:
    """What ``model``, for ``num_classes`` classes, takes of the ``tensors`` of ``file``: all but a head for another number of classes.

    Raises ScalelabError for whatever else does not fit, with the nearest names, and ``hint`` unless it is wholly another model.
    """
    state = model.state_dict()
    tensors = {name: value for name, value in tensors.items() if name in state or not name.endswith(COUNTER)}
    dropped = tuple(name for name in tensors if name not in state and name.startswith(EXTRA_HEADS))
    extra = [name for name in tensors if name not in state and name not in dropped]
    missing = [name for name in state if name not in tensors and not name.endswith(COUNTER)]
    hint = hint if {name.split(".")[0] for name in state} & {name.split(".")[0] for name in tensors} else ""
    if missing:
        raise _misfit(file, f"it has no '{missing[0]}'{nearest(missing[0], extra or tensors)}", len(missing), hint)
    if extra:
        raise _misfit(file, f"the model has no '{extra[0]}'{nearest(extra[0], state)}", len(extra), hint)
    differ = [name for name in state if name in tensors and tensors[name].shape != state[name].shape]
    left = [name for name in differ if _of_a_head(state[name], tensors[name], num_classes)]
    others = [name for name in differ if name not in left]
    sizes = {len(tensors[name]) for name in left}
    if others or len(sizes) > 1:
        name = (others or left)[0]
        there, here = list(tensors[name].shape), list(state[name].shape)
        raise _misfit(file, f"'{name}' is {there} there and {here} in the model", len(others or left), hint)
    taken = {name: tensors[name] for name in state if name in tensors and name not in left}
    _check_values(taken, state, file)
    return Match(taken, tuple(left), sizes.pop() if sizes else None, dropped)


def _misfit(file: str, what: str, count: int, hint: str) -> ScalelabError:
    more = f", and {count - 1} more differ" if count > 1 else ""
    return ScalelabError(f"--weights {file}: does not fit the model: {what}{more}{hint}")


def _of_a_head(here: Tensor, there: Tensor, num_classes: int) -> bool:
    """Whether two tensors differ in nothing but the number of classes."""
    return here.dim() > 0 and len(here) == num_classes and here.dim() == there.dim() and here.shape[1:] == there.shape[1:]


def _check_values(taken: Tensors, state: Tensors, file: str) -> None:
    """Raises ScalelabError for values that are not finite, or of another kind (quantised ones)."""
    for name, value in taken.items():
        if value.is_floating_point() != state[name].is_floating_point():
            raise ScalelabError(f"--weights {file}: '{name}' is of type {str(value.dtype).removeprefix('torch.')}")
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise ScalelabError(f"--weights {file}: '{name}' holds values that are not finite")


def take(model: nn.Module, found: Match) -> None:
    """Copy what was matched into ``model``, in the model's own type."""
    model.load_state_dict(found.taken, strict=False)
