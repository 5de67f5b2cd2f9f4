"""Checkpoints: the unsharded training state as safetensors, so that it resumes under any strategy and world size.

    checkpoints/step-00000120.safetensors   tensors `model/<name>` and `optimizer/<parameter>/<slot>`
    checkpoints/last.json, best.json        {"file", "sha256", "step", …}: which file, and what it must hash to

Files are written beside and renamed; a pointer is replaced only after its file is whole. The last two and the best are
kept, so that a damaged one can be passed over. A run that ended inside an epoch also keeps `ranks/buffers`: with local batch norm
each rank has running statistics of its own, which are averaged at the end of an epoch only.
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

POINTERS = ("last", "previous", "best")
OWN = "ranks/buffers"
"""each rank's own running statistics, [ranks, n]: only in a checkpoint made inside an epoch"""


@dataclass(frozen=True)
class Progress:
    """Where a training stands: what a checkpoint holds besides the state."""

    step: int = 0
    best_accuracy: float = -math.inf
    epochs_without_better: int = 0


def save(folder: Path, state: dict[str, Any], progress: Progress, best: bool) -> None:
    """Write the state of ``progress.step`` as ``last`` (and ``best``). One rank calls it. Raises RunError (disk full)."""
    checkpoints = folder / "checkpoints"
    body = _encode(state, progress)
    path = checkpoints / f"step-{progress.step:08d}.safetensors"
    write_atomic(path, body)
    pointer = json.dumps({"file": path.name, "sha256": hashlib.sha256(body).hexdigest(), "step": progress.step}, indent=1)
    last = checkpoints / "last.json"
    if last.exists() and json.loads(last.read_text())["step"] != progress.step:
        os.replace(last, checkpoints / "previous.json")
    write_atomic(last, pointer)
    if best:
        write_atomic(checkpoints / "best.json", pointer)
    wanted = {json.loads(p.read_text())["file"] for name in POINTERS if (p := checkpoints / f"{name}.json").exists()}
    for old in checkpoints.glob("step-*.safetensors"):
        if old.name not in wanted:
            old.unlink(missing_ok=True)


def load(folder: Path, say: Callable[[str], None]) -> tuple[dict[str, Any], Progress]:
    """The newest whole checkpoint of a run folder; a damaged one is named through ``say`` and the one before it is used.

    Raises ScalelabError when there is none, or all are damaged.
    """
    checkpoints = folder / "checkpoints"
    faults = []
    for name in ("last", "previous"):
        pointer = checkpoints / f"{name}.json"
        if not pointer.exists():
            continue
        try:
            facts = json.loads(pointer.read_text())
            body = (checkpoints / Path(str(facts["file"])).name).read_bytes()
            if hashlib.sha256(body).hexdigest() != facts["sha256"]:
                raise RunError("its checksum is wrong")
            return _decode(body)
        except (OSError, KeyError, ValueError, RunError, SafetensorError) as error:
            faults.append(f"{pointer.parent.name}/{pointer.name} is damaged ({error})")
            say(f"checkpoint {faults[-1]}; using the one before it")
    raise ScalelabError(
        f"{folder}: no checkpoint to resume from"
        + (f": {'; '.join(faults)}" if faults else " (it ended before its first epoch did)")
    )


def _encode(state: dict[str, Any], progress: Progress) -> bytes:
    tensors: dict[str, Tensor] = {f"model/{name}": value for name, value in state["model"].items()}
    if state.get("own") is not None:
        tensors[OWN] = state["own"]
    scalars: dict[str, dict[str, Any]] = {}
    for parameter, slots in state["optimizer"]["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{parameter}/{slot}"] = value
            else:
                scalars.setdefault(parameter, {})[slot] = value
    header = {
        "progress": json.dumps(asdict(progress)),
        "scalars": json.dumps(scalars),
        "groups": json.dumps(state["optimizer"]["param_groups"]),
    }
    return save_tensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, metadata=header)


def _decode(body: bytes) -> tuple[dict[str, Any], Progress]:
    length = int.from_bytes(body[:8], "little")  # safetensors: the header's length, then the header as JSON
    header = json.loads(body[8 : 8 + length])["__metadata__"]
    model: dict[str, Tensor] = {}
    slots: dict[str, dict[str, Any]] = json.loads(header["scalars"])
    tensors = load_tensors(body)
    own = tensors.pop(OWN, None)
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "model":
            model[rest] = value
        else:
            parameter, _, slot = rest.rpartition("/")
            slots.setdefault(parameter, {})[slot] = value
    state = {"model": model, "optimizer": {"state": slots, "param_groups": json.loads(header["groups"])}, "own": own}
    return state, Progress(**json.loads(header["progress"]))
