"""Checkpoints: the unsharded training state as safetensors, so that it resumes under any strategy and world size.

    checkpoints/step-00000120.safetensors   tensors `model/<name>` and `optimizer/<parameter>/<slot>`
    checkpoints/last.json, best.json        {"file", "sha256", "step", …}: which file, and what it must hash to

Files are written beside and renamed; a pointer is replaced only after its file is whole. The last two and the best are
kept, so that a damaged one can be passed over. A run that ended inside an epoch also keeps `replicas/<buffer>`: with local batch norm
each replica has running statistics of its own, which are averaged at the end of an epoch only. `outer/<parameter>` is the momentum of
local-sgd's outer optimizer.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from scalelab.errors import RunError, ScalelabError
from scalelab.record.folder import write_atomic
from scalelab.record.pointer import NEWEST, pointer

POINTERS = (*NEWEST, "best")
OWN = "replicas/"
"""prefix of each replica's own running statistics, [replicas, *shape]: only in a checkpoint made inside an epoch"""


@dataclass(frozen=True)
class Progress:
    """Where a training stands: what a checkpoint holds besides the state."""

    step: int = 0
    best_accuracy: float = -math.inf
    epochs_without_better: int = 0
    epoch_seconds: float = 0.0
    """of training in the epoch that ``step`` is inside of, where a stop broke it off before its evaluation"""


def save(folder: Path, state: dict[str, Any], progress: Progress, best: bool) -> None:
    """Write the state of ``progress.step`` as ``last`` (and ``best``). One rank calls it. Raises RunError (disk full)."""
    checkpoints = folder / "checkpoints"
    body = _encode(state, progress)
    path = checkpoints / f"step-{progress.step:08d}.safetensors"
    write_atomic(path, body)
    named = json.dumps({"file": path.name, "sha256": hashlib.sha256(body).hexdigest(), "step": progress.step}, indent=1)
    before = pointer(checkpoints / "last.json")
    if before is not None and before.step != progress.step:
        os.replace(checkpoints / "last.json", checkpoints / "previous.json")
    write_atomic(checkpoints / "last.json", named)
    if best:
        write_atomic(checkpoints / "best.json", named)
    wanted = {held.file for name in POINTERS if (held := pointer(checkpoints / f"{name}.json")) is not None}
    for old in checkpoints.glob("step-*.safetensors"):
        if old.name not in wanted:
            old.unlink(missing_ok=True)


def best(folder: Path) -> tuple[Path, str] | None:
    """The file of the best checkpoint of a run folder, and what it must hash to; the newest where none was called best."""
    found = (pointer(folder / "checkpoints" / f"{name}.json") for name in ("best", "last"))
    held = next((one for one in found if one is not None), None)
    return None if held is None else (folder / "checkpoints" / held.file, held.sha256)


def load(folder: Path, say: Callable[[str], None]) -> tuple[dict[str, Any], Progress]:
    """What ``read`` finds, decoded."""
    return decode(read(folder, say))


def read(folder: Path, say: Callable[[str], None]) -> bytes:
    """The newest whole checkpoint of a run folder; a damaged one is named through ``say`` and the one before it is used.

    Raises ScalelabError when there is none, or all are damaged.
    """
    checkpoints = folder / "checkpoints"
    faults = []
    for name in NEWEST:
        path = checkpoints / f"{name}.json"
        if not path.exists():
            continue
        try:
            held = pointer(path)
            if held is None:
                raise RunError("it is not a pointer to a checkpoint")
            body: bytes = (checkpoints / held.file).read_bytes()
            if hashlib.sha256(body).hexdigest() != held.sha256:
                raise RunError("its checksum is wrong")
            decode(body)
            return body
        except (OSError, KeyError, TypeError, ValueError, RunError, SafetensorError) as error:
            faults.append(f"{path.parent.name}/{path.name} is damaged ({error})")
            say(f"checkpoint {faults[-1]}; using the one before it")
    raise ScalelabError(
        f"{folder}: no checkpoint to resume from"
        + (f": {'; '.join(faults)}" if faults else " (it ended before its first epoch did); train it anew, without --resume")
    )


def _encode(state: dict[str, Any], progress: Progress) -> bytes:
    tensors: dict[str, Tensor] = {f"model/{name}": value for name, value in state["model"].items()}
    tensors |= {f"{OWN}{name}": value for name, value in (state.get("own") or {}).items()}
    tensors |= {f"outer/{name}": value for name, value in state.get("outer", {}).items()}
    scalars: dict[str, dict[str, Any]] = {}
    for parameter, slots in state["optimizer"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{parameter}/{slot}"] = value
            else:
                scalars.setdefault(parameter, {})[slot] = value
    header = {"progress": json.dumps(asdict(progress)), "scalars": json.dumps(scalars)}
    return save_tensors(_apart(tensors), metadata=header)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in the same memory (tied weights), which the format refuses."""
    seen: set[int] = set()
    result = {}
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        result[name] = value.clone() if place in seen else value
        seen.add(place)
    return result


def decode(body: bytes) -> tuple[dict[str, Any], Progress]:
    """(state, progress) of a checkpoint's bytes."""
    length = int.from_bytes(body[:8], "little")  # safetensors: the header's length, then the header as JSON
    header = json.loads(body[8 : 8 + length])["__metadata__"]
    kinds: dict[str, dict[str, Tensor]] = {"model": {}, "replicas": {}, "outer": {}}
    slots: dict[str, dict[str, Any]] = json.loads(header["scalars"])
    for name, value in sorted(load_tensors(body).items()):  # in one order on all ranks, which exchange tensors in it
        kind, _, rest = name.partition("/")
        if kind in kinds:
            kinds[kind][rest] = value
        else:
            parameter, _, slot = rest.rpartition("/")
            slots.setdefault(parameter, {})[slot] = value
    state = {"model": kinds["model"], "optimizer": slots, "own": kinds["replicas"], "outer": kinds["outer"]}
    return state, Progress(**json.loads(header["progress"]))
