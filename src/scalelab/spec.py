"""What to train, and how: the one source of the flags, the YAML files and the spec kept in each record.

A spec is a value: frozen, typed, checked when it is made. Its field names are the flags' names
(``micro_batch`` is ``--micro-batch``) and the YAML keys. Importing this module needs no torch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from scalelab.errors import ScalelabError, in_words, nearest

Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Fraction = Annotated[float, Meta(gt=0, le=1)]


def field(group: str, text: str, **constraints: Any) -> Meta:
    """``Meta`` with the help text and the group under which ``--help`` shows the flag."""
    return Meta(description=text, extra={"group": group}, **constraints)


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training, wholly described."""

    # what is learnt
    model: Annotated[
        str,
        field(
            "task",
            "basic_cnn, vgg16, alexnet, inception_v3, resnet18, resnet50, mobilenet_v2, efficientnet_b0, vit_s, cnn_lstm, ensemble, "
            "torchvision:NAME, timm:NAME or path/to/file.py:function",
        ),
    ] = "basic_cnn"
    model_args: Annotated[dict[str, Any], field("task", "KEY=VALUE, passed to the model's function (repeatable)")] = {}
    weights: Annotated[
        str | None, field("task", "initial weights: .safetensors, .pt or .pth file, or a run (its best checkpoint)")
    ] = None
    freeze: Annotated[
        str | None,
        field("task", "parameters that are not trained, by name: 'conv1*,layer1*'; their batch norms stay as they are"),
    ] = None
    data: Annotated[
        str,
        field(
            "task",
            "digits, cifar10, cifar100, svhn, synthetic, synthetic-clips, folder:PATH, parquet:PATH or path/to/file.py:function",
        ),
    ] = "digits"
    data_dir: Annotated[
        str | None, field("task", "folder of cifar10, cifar100 or svhn: official files, their folder, or Parquet")
    ] = None
    train_limit: Annotated[Positive | None, field("task", "use only the first N training samples")] = None
    test_limit: Annotated[Positive | None, field("task", "use only the first N test samples")] = None
    image_size: Annotated[int, field("task", "height and width of synthetic images and clips", ge=1)] = 32
    classes: Annotated[int, field("task", "number of classes of synthetic data", ge=2)] = 10
    frames: Annotated[int, field("task", "frames of a clip: made, or taken evenly from a folder of frames", ge=1)] = 8
    resize: Annotated[Positive | None, field("task", "images are resized to N x N, antialiased, batch by batch")] = None
    stream: Annotated[
        Literal["auto", "always", "never"],
        field("task", "folder, parquet: decode while training; auto: where decoded they would take over half of a host's memory"),
    ] = "auto"
    data_workers: Annotated[
        Positive | None, field("task", "threads of each worker that decode streamed images; default: as many as compute")
    ] = None
    augment: Annotated[Literal["auto", "none", "crop", "flip", "crop+flip"], field("task", "auto: what suits the data set")] = (
        "auto"
    )
    seed: Annotated[int, field("task", "of the initial weights, the order and the augmentation", ge=0, le=2**32 - 1)] = 0

    # how it is spread
    strategy: Annotated[
        str,
        field("strategy", "single, dp, ddp, zero1, zero2, zero3, model, pipeline, local-sgd or path/to/file.py:Class"),
    ] = "single"
    engine: Annotated[Literal["torch", "deepspeed", "horovod"], field("strategy", "who carries the strategy out")] = "torch"
    workers: Annotated[int, field("strategy", "number of processes (ranks)", ge=1)] = 1
    device: Annotated[
        Literal["auto", "cpu", "cuda"], field("strategy", "auto: cuda when every worker can have a GPU, else cpu")
    ] = "auto"
    threads_per_worker: Annotated[Positive | None, field("strategy", "CPU threads of each worker; default: cores / workers")] = (
        None
    )
    batch_norm: Annotated[
        Literal["local", "sync"], field("strategy", "sync: statistics of the global batch, exact; local: of each worker's share")
    ] = "local"
    norm_slices: Annotated[
        int, field("strategy", "batch norm sees this many slices of a batch apart, as so many workers would", ge=1)
    ] = 1
    shares: Annotated[
        str | None,
        field("strategy", "share of each batch by worker, such as 3:1, or measured: in proportion to speed (default: equal)"),
    ] = None
    timeout: Annotated[float, field("strategy", "seconds after which a silent worker ends the job", gt=0)] = 600.0
    master_port: Annotated[Port | None, field("strategy", "port of the rendezvous; default: a free one")] = None

    # what only some strategies have
    stages: Annotated[
        Positive | None,
        field("parallel", "model, pipeline: cut the layers into N stages (default: workers), with workers / N replicas"),
    ] = None
    split: Annotated[
        str | None, field("parallel", "model, pipeline: modules at which a stage begins: layer2,layer3 (default: equal times)")
    ] = None
    pipeline_schedule: Annotated[
        Literal["gpipe", "1f1b", "interleaved", "zero-bubble"], field("parallel", "pipeline: order of the micro-batches")
    ] = "1f1b"
    shard: Annotated[
        Positive | None,
        field("parallel", "zero2, zero3: shard over N workers (default: all); fewer: replicas of the shards, HSDP"),
    ] = None
    offload: Annotated[
        Literal["none", "optimizer", "all"],
        field("parallel", "to the host's memory: the optimizer's state, or parameters too (all)"),
    ] = "none"
    param_dtype: Annotated[
        Literal["fp32", "bf16"],
        field("parallel", "zero2, zero3: what is gathered and computed with; gradients are reduced in fp32"),
    ] = "fp32"
    recompute: Annotated[
        bool, field("parallel", "keep no activations inside blocks, compute them again in the backward pass")
    ] = False
    compress: Annotated[
        Literal["none", "fp16", "bf16", "powersgd"],
        field("parallel", "ddp: what gradients are sent as; changes the result a little"),
    ] = "none"
    powersgd_rank: Annotated[int, field("parallel", "compress powersgd: rank of the approximation", ge=1)] = 4
    sync_every: Annotated[int, field("parallel", "local-sgd: local steps between two averagings", ge=1)] = 10
    outer_lr: Annotated[float, field("parallel", "local-sgd: outer learning rate; 1 is plain averaging (DiLoCo: 0.7)", gt=0)] = (
        1.0
    )
    outer_momentum: Annotated[float, field("parallel", "local-sgd: outer Nesterov momentum (DiLoCo: 0.9)", ge=0, lt=1)] = 0.0
    deepspeed_config: Annotated[
        str | None, field("parallel", "engine deepspeed: JSON file merged over the generated configuration")
    ] = None

    # batch: exactly one of batch and batch_per_worker; of micro_batch and accumulate at most one
    batch: Annotated[
        Positive | None, field("batch", "global batch: samples per optimizer step over all workers (default 64)")
    ] = None
    batch_per_worker: Annotated[Positive | None, field("batch", "the same, said per worker")] = None
    micro_batch: Annotated[Positive | None, field("batch", "samples of one forward on one worker")] = None
    accumulate: Annotated[Positive | None, field("batch", "forwards per optimizer step on each worker")] = None

    # how it is learnt
    optimizer: Annotated[str, field("optimization", "sgd, adamw, adafactor, lars or lamb")] = "sgd"
    lr: Annotated[float, field("optimization", "peak learning rate", gt=0)] = 0.05
    momentum: Annotated[float, field("optimization", "of sgd and lars", ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, field("optimization", "of all parameters", ge=0)] = 0.0
    schedule: Annotated[str, field("optimization", "constant, step, cosine or one-cycle")] = "constant"
    warmup_epochs: Annotated[float, field("optimization", "epochs of linear warm-up before the schedule", ge=0)] = 0.0
    step_epochs: Annotated[int, field("optimization", "schedule step: epochs between decays", ge=1)] = 30
    step_gamma: Annotated[float, field("optimization", "schedule step: factor of each decay", gt=0, le=1)] = 0.1
    lr_scaling: Annotated[
        Literal["none", "linear", "sqrt"], field("optimization", "how --lr grows with the batch, from --base-batch on")
    ] = "none"
    base_batch: Annotated[Positive | None, field("optimization", "with --lr-scaling: the batch that --lr is meant for")] = None
    batch_schedule: Annotated[
        str | None, field("optimization", "another global batch from an epoch on, EPOCH:BATCH, such as 0:128,10:512,20:2048")
    ] = None
    lr_follows_batch: Annotated[
        bool, field("optimization", "with --batch-schedule: --lr-scaling at each change, too, not at the first batch only")
    ] = False
    label_smoothing: Annotated[float, field("optimization", "share of the target spread over all classes", ge=0, lt=1)] = 0.0
    precision: Annotated[
        Literal["fp32", "bf16", "fp16", "fp64"],
        field("optimization", "bf16: autocast (deepspeed: bf16 weights); fp16: deepspeed only; fp64: for comparisons"),
    ] = "fp32"
    compile: Annotated[bool, field("optimization", "compile the model with torch.compile")] = False
    channels_last: Annotated[Literal["auto", "on", "off"], field("optimization", "memory layout; auto: where it helps")] = "auto"

    # how long
    epochs: Annotated[
        Positive | None, field("length", "total epochs, also after --resume (default 1, or as many as --steps needs)")
    ] = None
    steps: Annotated[Positive | None, field("length", "total optimizer steps; with --epochs, whichever ends first")] = None
    stop_after_epoch: Annotated[Positive | None, field("length", "end early, as if the run were to be resumed")] = None
    target_accuracy: Annotated[Fraction | None, field("length", "stop when the test accuracy reaches it (0 to 1)")] = None
    early_stop: Annotated[Positive | None, field("length", "stop after N epochs without a better test accuracy")] = None

    # what is kept and measured
    name: Annotated[str | None, field("record", "name of the run; default: model and strategy")] = None
    out: Annotated[str, field("record", "folder in which run folders are made")] = "runs"
    resume: Annotated[str | None, field("record", "run folder to go on with")] = None
    checkpoint: Annotated[bool, field("record", "keep the best and the last checkpoint")] = True
    evaluate: Annotated[bool, field("record", "evaluate on the test set after each epoch")] = True
    dropout: Annotated[bool, field("record", "false: dropout and stochastic depth are set to 0 (verify does)")] = True
    smooth: Annotated[
        bool, field("record", "ReLU is replaced by SiLU, max by average pooling (verify does for float32 weights)")
    ] = False
    warmup_steps: Annotated[int, field("record", "first steps that train but are left out of the timing", ge=0)] = 5
    probe_steps: Annotated[
        int, field("record", "pairs of steps, with and without communication, that measure it; 0: none", ge=0)
    ] = 8
    profile: Annotated[
        int, field("record", "save a Chrome trace of N steps of all workers, those after the warm-up; they are not timed", ge=0)
    ] = 0
    sample_seconds: Annotated[
        float, field("record", "seconds between two samples of each worker's CPU, memory, network and GPU; 0: none", ge=0)
    ] = 1.0


FIELDS: tuple[str, ...] = Spec.__struct_fields__
HELP: dict[str, str] = {}
GROUPS: dict[str, str] = {}
CHOICES: dict[str, tuple[str, ...]] = {}
"""the valid values of the fields that have a closed list of them"""
for _name, _hint in get_type_hints(Spec, include_extras=True).items():
    _meta = next(m for m in _hint.__metadata__ if m.extra)
    HELP[_name], GROUPS[_name] = _meta.description, _meta.extra["group"]
    if get_origin(_hint.__origin__) is Literal:
        CHOICES[_name] = get_args(_hint.__origin__)


def defaults() -> dict[str, Any]:
    """Each field's default."""
    spec = Spec()
    return {name: getattr(spec, name) for name in FIELDS}


PARALLEL: dict[str, Any] = {name: default for name, default in defaults().items() if GROUPS[name] == "parallel"}
"""the fields that only some strategies have, with the value that asks for nothing"""
WAYS = (
    ("batch", "batch_per_worker"), ("batch", "batch_schedule"), ("batch_per_worker", "batch_schedule"), ("micro_batch", "accumulate"),
)  # fmt: skip
"""pairs of fields that say the same thing in two ways"""


def over(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``given`` over it; what is given one way takes the place of the base's other way to say it."""
    said = {name for pair in WAYS for name in pair if given.get(name) is not None}
    displaced = {other for pair in WAYS for one, other in (pair, pair[::-1]) if one in said}
    return {**{name: value for name, value in base.items() if name not in displaced}, **given}


def from_mapping(values: dict[str, Any], source: str = "", flags: bool = False) -> Spec:
    """The spec of ``values``; text is converted (``"8"`` to 8). Raises ScalelabError in one line.

    ``flags`` names the fields as on the command line in the errors (``--micro-batch``).
    """
    prefix = f"{source}: " if source else ""

    def wrong(name: str, what: str) -> ScalelabError:
        shown = "--" + name.replace("_", "-") if flags else name
        return ScalelabError(f"{prefix}{shown} {values.get(name)!r}: {what} ({HELP[name]})")

    for key in values:
        if key not in FIELDS:
            raise ScalelabError(f"{prefix}unknown key '{key}'{nearest(key, FIELDS)}; valid: {', '.join(FIELDS)}")
    try:
        spec = msgspec.convert(values, Spec, strict=False)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`").split("[")[0]
        choices = CHOICES.get(name)
        raise wrong(name, f"expected one of {', '.join(choices)}" if choices else in_words(what)) from None
    for name in FIELDS:
        if isinstance(value := getattr(spec, name), float) and not math.isfinite(value):
            raise wrong(name, "expected a finite number")
    return spec


def load(path: Path) -> Spec:
    """The spec in a YAML file. Raises ScalelabError for a missing, malformed or wrong file."""
    return from_mapping(read_yaml(path), source=str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, unchecked. Raises ScalelabError."""
    import yaml  # here: most commands read no spec

    try:
        values = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  # both are safe
    except FileNotFoundError:
        raise ScalelabError(f"{path}: no such spec file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8; 2020-02-31
        raise ScalelabError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ScalelabError(f"{path}: a spec is a mapping of keys to values, such as 'model: basic_cnn'")
    return values


def dump(spec: Spec) -> str:
    """The spec as YAML, every field written out."""
    import yaml

    return yaml.safe_dump(msgspec.to_builtins(spec), sort_keys=False, allow_unicode=True)
