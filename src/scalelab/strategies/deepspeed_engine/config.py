"""DeepSpeed's JSON, generated from a spec; and the user's own merged over it. Needs neither DeepSpeed nor torch.

The keys are those of DeepSpeed 0.19 (https://www.deepspeed.ai/docs/config-json/). What a spec decides is written out even where it is
DeepSpeed's default, so that a user's file that says otherwise is found to contradict it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scalelab.batch import Derived
from scalelab.errors import ScalelabError
from scalelab.spec import Spec

STAGES = {"ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3, "pipeline": 0}
"""ZeRO's stage by strategy"""

DECIDED = {
    "train_batch_size": "--batch",
    "train_micro_batch_size_per_gpu": "--micro-batch",
    "gradient_accumulation_steps": "--accumulate",
    "zero_optimization.stage": "--strategy ddp, zero1, zero2 or zero3",
    "zero_optimization.offload_optimizer.device": "--offload optimizer",
    "zero_optimization.offload_param.device": "--offload all",
    "fp16.enabled": "--precision fp16",
    "bf16.enabled": "--precision bf16",
    "torch_autocast.enabled": "--precision bf16 or fp16",
    "managed_gradient_accumulation": "--accumulate",
    "zero_allow_untested_optimizer": "--optimizer",
    "zero_force_ds_cpu_optimizer": "--optimizer",
}
"""keys that follow from the spec, and the flag that changes each"""

ELSEWHERE = {
    "optimizer": "--optimizer, --lr, --momentum and --weight-decay",
    "scheduler": "--schedule and --warmup-epochs",
    "amp": "--precision",
    "data_types": "--precision",
    "elasticity": "--batch and --workers",
    "tensor_parallel": "--strategy",
    "expert_parallel": "--strategy",
    "sequence_parallel_size": "--strategy",
    "pipeline": "--strategy pipeline and --stages",
    "autotuning": "--batch and --strategy",
    "curriculum_learning": "--data",
    "data_efficiency": "--data",
    "compression_training": "--model",
    "progressive_layer_drop": "--model",
    "zero_optimization.zero_hpz_partition_size": "--strategy",
    "zero_optimization.mics_shard_size": "--strategy",
    "zero_optimization.zero_quantized_weights": "--compress",
    "zero_optimization.zero_quantized_gradients": "--compress",
    "activation_checkpointing": "--recompute",
}
"""sections about what a training here says in another way, and how"""

BUCKET = 6_553_600
"""elements reduced or gathered at once: 25 MiB of float32, as torch's DDP does; DeepSpeed's default would allocate 2 GB on every rank"""
ALIASES = {"bfloat16": "bf16"}
AUTO = "auto"
"""a value that other trainers fill in; here it means what the spec says, or DeepSpeed's default"""


def config(spec: Spec, derived: Derived) -> dict[str, Any]:
    """The configuration of a training: ``generated``, with ``--deepspeed-config`` merged over it. Raises ScalelabError."""
    made = generated(spec, derived)
    return made if spec.deepspeed_config is None else merged(made, read(Path(spec.deepspeed_config)), spec.deepspeed_config)


def generated(spec: Spec, derived: Derived) -> dict[str, Any]:
    """The configuration that a spec asks for. Clipping, 1.0 by DeepSpeed's default, is off: the spec has none."""
    offloaded = {"none": (), "optimizer": ("optimizer",), "all": ("optimizer", "param")}[spec.offload]
    return {
        "train_batch_size": derived.micro_batch * derived.accumulate * derived.replicas,
        "train_micro_batch_size_per_gpu": derived.micro_batch,
        "gradient_accumulation_steps": derived.accumulate,
        "managed_gradient_accumulation": True,
        "gradient_clipping": 0.0,
        "zero_optimization": {
            "stage": STAGES[spec.strategy],
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            "offload_optimizer": {"device": "cpu" if "optimizer" in offloaded else "none"},
            "offload_param": {"device": "cpu" if "param" in offloaded else "none"},
        },
        "zero_allow_untested_optimizer": True,  # the spec's optimizer is the one used, whichever it is
        "zero_force_ds_cpu_optimizer": False,  # and stays it where its state is offloaded
        "fp16": {"enabled": spec.precision == "fp16"},
        "bf16": {"enabled": spec.precision == "bf16"},
        "torch_autocast": {"enabled": False},
    }


def read(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ScalelabError in one line."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScalelabError(f"--deepspeed-config {path}: no such file") from None
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ScalelabError(f"--deepspeed-config {path}: cannot be read as JSON: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ScalelabError(f'--deepspeed-config {path}: expected an object, such as {{"gradient_clipping": 1.0}}')
    return found


def merged(made: dict[str, Any], theirs: Mapping[str, Any], source: str) -> dict[str, Any]:
    """``made`` with the user's keys over it. Raises ScalelabError for one that contradicts the spec, naming key, values and flag."""
    named = {ALIASES.get(key, key): value for key, value in theirs.items()}
    return _over(made, _without_auto(named), source, "")


def _over(made: dict[str, Any], theirs: Mapping[str, Any], source: str, prefix: str) -> dict[str, Any]:
    result = dict(made)
    for name, value in theirs.items():
        key, ours = prefix + name, made.get(name)
        if key in ELSEWHERE and value not in (None, AUTO):
            raise ScalelabError(
                f"--deepspeed-config {source}: '{key}' is {_shown(value)}, but here that is said with {ELSEWHERE[key]}: leave it out"
            )
        if isinstance(ours, dict) and (value is None or isinstance(value, bool) or not isinstance(value, Mapping)):
            raise ScalelabError(
                f"--deepspeed-config {source}: '{key}' is {_shown(value)}; expected an object, such as {_shown(ours)}"
            )
        if isinstance(value, Mapping):
            result[name] = _over(ours if isinstance(ours, dict) else {}, value, source, f"{key}.")
            continue
        if key in DECIDED and value != ours:
            raise ScalelabError(
                f"--deepspeed-config {source}: '{key}' is {_shown(value)}, but the spec makes it {_shown(ours)}: "
                f"leave it out, or change the spec with {DECIDED[key]}"
            )
        result[name] = value
    return result


def _without_auto(values: Mapping[str, Any]) -> dict[str, Any]:
    def kept() -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            if isinstance(value, Mapping):
                yield name, _without_auto(value)
            elif value != AUTO:
                yield name, value

    return dict(kept())


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
