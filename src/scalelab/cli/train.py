"""``scalelab train``: one training, recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from scalelab import spec as specs
from scalelab.batch import Derived
from scalelab.cli.flags import Parser, add_common, add_spec, values_of
from scalelab.cli.places import on_slurm
from scalelab.cli.places.inside import run_other
from scalelab.cli.places.placing import add_placing, commands_as_json, launcher_of, show_commands
from scalelab.cli.summary import summarise, tell_failure, tell_interrupted
from scalelab.cli.terminal import Watcher, console
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.launcher import Prepared
from scalelab.launch.slurm.settling import current
from scalelab.launch.unclosed import refuse_running
from scalelab.record import folder as records
from scalelab.spec import Spec

EXAMPLE = """  scalelab train --model basic_cnn --data digits --epochs 5
  scalelab train --model resnet18 --data cifar10 --data-dir data/cifar10 --strategy zero3 --workers 2 --batch 64
  scalelab train --model timm:mobilenetv3_small_050 --data my_data.py:load --strategy ddp --workers 2 --json
  scalelab train --resume runs/20260101T120000Z-basic_cnn-ddp-1a2b3c --epochs 10"""

LR_RULES = {"linear": "in proportion to the batch", "sqrt": "in proportion to the square root of the batch"}
OF_THE_WORKERS = {"stages", "split", "shard", "shares"}
"""fields that say how so many workers are laid out"""


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    parser = Parser("train", "Train a model with a strategy, on this machine or several hosts, and keep a record.", EXAMPLE)
    add_spec(parser)
    add_placing(parser)
    on_slurm.add_slurm(parser)
    add_common(parser)
    other = run_other(parser, words)
    if other is not None:
        return other
    parsed = parser.parse(words)
    if on_slurm.wanted(parsed):
        values = on_slurm.as_before(parsed, values_of(parsed))
        request = on_slurm.request_of(parsed, values)
        return on_slurm.train(parsed, spec_of({"workers": request.workers, **values}), request, debug)
    err = console(to_stderr=True)
    with launcher_of(parsed, one=True) as launcher:
        values = values_of(parsed)
        if launcher.slots is not None:
            values.setdefault("workers", launcher.slots)
        spec = spec_of(values)
        if spec.shares is None:
            spec = msgspec.structs.replace(spec, shares=launcher.shares(spec))
        launcher.warm()
        prepared = training.prepare(launcher, spec)
        explain(err, prepared)
        if parsed.dry_run:
            commands = launcher.commands(spec, prepared.derived)
            if parsed.json:
                print(commands_as_json(prepared, commands))
            else:
                show_commands(console(), commands)
            return 0
        with Watcher(err, spec.strategy, prepared.plan["total_steps"]) as watcher:
            try:
                record = training.train(launcher, prepared, [sys.executable, "-m", "scalelab", *sys.argv[1:]], watcher.watch)
            except KeyboardInterrupt:
                tell_interrupted(err, watcher.folder)
                raise
    folder = Path(spec.resume) if spec.resume else Path(spec.out) / record.run
    if parsed.json:
        print(msgspec.json.encode(msgspec.structs.replace(record, run=str(folder))).decode())
    else:
        summarise(console(), record, folder)
    if record.failure is not None:
        tell_failure(err, record, folder, debug)
    return 0 if record.status == "completed" else 1


def spec_of(values: dict[str, Any]) -> Spec:
    """The spec; with ``resume``, the resumed run's own with what was given over it. Raises ScalelabError."""
    if not values.get("resume"):
        return specs.from_mapping(values, flags=True)
    folder = records.find([str(values["resume"])], Path(str(values.get("out", "runs"))))[0]
    record = current(folder)
    if record.status == "running":
        refuse_running(folder, record.attempts[-1])
    if record.status == "queued":
        raise ScalelabError(f"{folder}: its job waits in the queue; wait for it, or end it with `scalelab cancel`")
    kept = msgspec.to_builtins(specs.load(folder / "spec.yaml"))
    if record.status == "completed":  # what ended the run once must not end it at once again
        kept.update(dict.fromkeys(("stop_after_epoch", "target_accuracy", "steps", "early_stop")))
    kept.update(batch=record.derived.batch, batch_per_worker=None)  # the steps stay what they were, on any number of workers
    kept = _without_outgrown(kept, values)
    return specs.from_mapping({**specs.over(kept, values), "resume": str(folder), "out": str(folder.parent)}, flags=True)


def _without_outgrown(kept: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """``kept`` with the defaults of those options that were another strategy's, engine's, or number of workers'."""
    now = msgspec.to_builtins(specs.from_mapping(specs.over(kept, values), flags=True))  # flags are text: 2 is no change of 2
    gone: set[str] = set()
    if now["workers"] != kept["workers"]:
        gone |= OF_THE_WORKERS
    if (now["strategy"], now["engine"]) != (kept["strategy"], kept["engine"]):
        gone |= OF_THE_WORKERS | specs.PARALLEL.keys()
    return {**kept, **{name: default for name, default in specs.defaults().items() if name in gone}}


def _spread(spec: Spec, derived: Derived) -> str:
    """The strategy, who carries it out, and its degrees where they are not simply the workers."""
    engine = f" with {spec.engine}" if spec.engine != "torch" else ""
    stages = f" ({derived.pipe} stages x {derived.replicas} replicas)" if derived.pipe > 1 and derived.replicas > 1 else ""
    shards = f" ({derived.data} replicas of {derived.shard} shards)" if derived.shard > 1 and derived.data > 1 else ""
    return f"{spec.strategy}{engine} on {spec.workers} worker{'s' * (spec.workers > 1)}{stages}{shards}"


def _micro_batches(derived: Derived) -> str:
    if derived.shares:
        return f"micro-batches of {' + '.join(map(str, derived.shares))} x accumulate {derived.accumulate}"
    replicas = f"{derived.replicas} replica{'s' * (derived.replicas > 1)}"
    return f"micro-batch {derived.micro_batch} x accumulate {derived.accumulate} x {replicas}"


def _decoding(derived: Derived) -> str:
    """The threads that decode streamed images, beside those that compute."""
    return f" + {derived.data_threads} to decode images" if derived.data_threads else ""


def _policies(spec: Spec, derived: Derived) -> list[str]:
    """How the learning rate and the batch follow each other, where they do."""
    said = []
    if derived.segments:
        parts = (f"{p.batch} (micro-batch {p.micro_batch} x accumulate {p.accumulate})" for p in derived.segments[1:])
        whens = (f"after {p.epoch} epoch{'s' * (p.epoch > 1)}" for p in derived.segments[1:])
        said.append("batch schedule: " + "; ".join(f"{when} {part}" for when, part in zip(whens, parts, strict=True)))
    if spec.lr_scaling != "none":
        rates = [part.lr for part in derived.segments] or [derived.lr or spec.lr]
        shown = ", then ".join(f"{rate:.4g}" for rate in dict.fromkeys(rates))
        said.append(f"peak learning rate {shown}: {spec.lr:g} for batch {spec.base_batch}, {LR_RULES[spec.lr_scaling]}")
    return said


def explain(err: Console, prepared: Prepared) -> None:
    """The derived numbers, before the start."""
    spec, derived, data, model = prepared.spec, prepared.derived, prepared.data, prepared.model
    err.print(
        f"{spec.model} ({model.parameters:,} parameters) on {data.name} ({data.train:,} training, {data.test:,} test images "
        f"of {'x'.join(map(str, data.shape))}, {len(data.classes)} classes)",
        markup=False,
    )
    err.print(
        f"{_spread(spec, derived)} x {derived.threads} thread{'s' * (derived.threads > 1)}{_decoding(derived)}; "
        f"batch {derived.batch} = {_micro_batches(derived)}; "
        f"{prepared.plan['total_steps']} steps, {prepared.plan['steps_per_epoch']} an epoch",
        markup=False,
    )
    for line in (*model.notes, *data.notes, *_policies(spec, derived)):
        err.print(line, markup=False)
    if prepared.plan["dropped"]:
        err.print(
            f"the last {prepared.plan['dropped']} training images, a partial batch, are left out of each epoch", markup=False
        )
    if derived.oversubscribed:
        err.print("oversubscribed: more threads than cores, so no efficiency is claimed for this run", style="yellow")
    if spec.precision == "bf16" and spec.device == "cpu":
        err.print("bf16 is slower than fp32 on most CPUs (20x was measured without AVX512-bf16)", style="yellow")
