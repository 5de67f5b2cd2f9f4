"""Every strategy and option that one GPU can carry, interleaved, against `single` on it; then the proof that each computes the same.

    python benchmarks/gpu.py --write docs/gpu.md

One GPU is one worker: NCCL refuses two ranks on a device. So this shows what each wrapper costs, not what it gains.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scalelab import spec as specs
from scalelab.errors import NotApplicable, RunError, ScalelabError
from scalelab.launch import training
from scalelab.launch.pool import Pool
from scalelab.measure.statistics import ratio
from scalelab.record.schema import Cell, Figure, TrainRecord
from scalelab.studies.verifying.variants import everything
from scalelab.studies.verifying.verify import label, verify

ROWS: dict[str, dict[str, Any]] = {
    "single": {},
    "single, channels-last": {"channels_last": "on"},
    "single, bf16": {"precision": "bf16"},
    "single, bf16, channels-last": {"precision": "bf16", "channels_last": "on"},
    "single, compile": {"compile": True},
    "single, compile, bf16": {"compile": True, "precision": "bf16"},
    "single, recompute": {"recompute": True},
    **{name: {"strategy": name} for name in ("ddp", "zero1", "zero2", "zero3")},
    "zero3, bf16 parameters": {"strategy": "zero3", "param_dtype": "bf16"},
    "zero3, offload": {"strategy": "zero3", "offload": "all"},
    "zero3, recompute": {"strategy": "zero3", "recompute": True},
    **{f"{name} on deepspeed": {"strategy": name, "engine": "deepspeed"} for name in ("ddp", "zero1", "zero2", "zero3")},
    "zero2 on deepspeed, fp16": {"strategy": "zero2", "engine": "deepspeed", "precision": "fp16"},
    "ddp on horovod": {"strategy": "ddp", "engine": "horovod"},
}
BEGIN, END = "<!-- results: benchmarks/gpu.py -->", "<!-- end of results -->"


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 when a row failed or a strategy computes something else, 2 for a user's mistake."""
    flags = argparse.ArgumentParser(description="every strategy and option that one GPU can carry, against single on it")
    flags.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu only tries the script out")
    flags.add_argument("--rounds", type=int, default=5, help="times that each row runs")
    flags.add_argument("--steps", type=int, default=100)
    flags.add_argument("--seed", type=int, default=0, help="of the order in which rows run")
    flags.add_argument("--only", nargs="+", choices=list(ROWS), help="some rows (single is always there)")
    flags.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="of every spec, such as model=resnet50 batch=256"
    )
    flags.add_argument("--write", type=Path, help="the page whose results are replaced: docs/gpu.md")
    given = flags.parse_args(words)
    try:
        with Pool() as pool, tempfile.TemporaryDirectory() as scratch:
            common = {"model": "resnet18", "data": "synthetic", "train_limit": 4096, "test_limit": 64, "batch": 128}
            common |= dict(pair(text) for text in given.set)
            base = {**common, "device": given.device, "out": scratch, "evaluate": False, "checkpoint": False, "probe_steps": 0}
            rows = {name: row for name, row in ROWS.items() if name == "single" or not given.only or name in given.only}
            rates, memory, absent = measure(pool, base, rows, given)
            proof = verify(
                pool, specs.from_mapping({**common, "device": given.device, "workers": 1, "steps": 4, "batch": 32}),
                everything(specs.from_mapping({"workers": 1})) if not given.only else [], False, tell,
            )  # fmt: skip
    except ScalelabError as error:
        print(f"benchmarks/gpu.py: {error}", file=sys.stderr)
        return error.exit_status
    text = page(rates, memory, absent, proof.cells, given)
    broken = any(isinstance(why, RunError) for why in absent.values())
    print(text)
    if given.write:
        before, _, rest = given.write.read_text(encoding="utf-8").partition(BEGIN)
        given.write.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 1 if broken or any(cell.status == "failed" for cell in proof.cells) else 0


def pair(text: str) -> tuple[str, str]:
    """KEY and VALUE. Raises ScalelabError."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ScalelabError(f"--set '{text}': must be KEY=VALUE, such as batch=256")
    return key, value


def tell(cell: Cell) -> None:
    print(f"verify {label(cell)}: {cell.status}", file=sys.stderr)


def measure(
    pool: Pool, base: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], given: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float], dict[str, ScalelabError]]:
    """Images/s of each row by round, the peak bytes of its last, and why rows are absent. Raises ScalelabError without `single`."""
    rates: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    absent: dict[str, ScalelabError] = {}
    order = random.Random(given.seed)
    for _ in range(given.rounds):
        for name in order.sample(list(rows), len(rows)):
            if name in absent:
                continue
            try:
                record = train(pool, specs.from_mapping({**base, **rows[name], "steps": given.steps}))
                rate, peak = known(record.images_per_second), known(record.memory_bytes.peak)
            except (NotApplicable, RunError) as error:
                if name == "single":
                    raise
                absent[name] = error
                rates.pop(name, None)
                continue
            rates.setdefault(name, []).append(rate)
            memory[name] = peak
            print(f"{name}: {rates[name][-1]:,.0f} images/s", file=sys.stderr)
    return rates, memory, absent


def known(figure: Figure) -> float:
    """Its median. Raises RunError with the reason where it was not measured."""
    if figure.median is None:
        raise RunError(f"not measured: {figure.reason}")
    return figure.median


def train(pool: Pool, spec: specs.Spec) -> TrainRecord:
    """One training. Raises NotApplicable before it starts, RunError when it fails."""
    record = training.train(pool, training.prepare(pool, spec), sys.argv, lambda folder: None)
    if record.failure is not None:
        raise RunError(record.failure.error)
    return record


def page(
    rates: Mapping[str, list[float]], memory: Mapping[str, float], absent: Mapping[str, ScalelabError], cells: Sequence[Cell],
    given: argparse.Namespace,
) -> str:  # fmt: skip
    """The results as Markdown."""
    lines = [f"    python benchmarks/gpu.py {shlex.join(sys.argv[1:])}", ""]
    lines += ["| row | images/s | over single | peak memory |", "|---|---|---|---|"]
    for name, values in rates.items():
        middle = sorted(values)[len(values) // 2]
        lines.append(f"| {name} | {middle:,.0f} | {told(ratio(values, rates['single']))} | {memory[name] / 2**20:,.0f} MiB |")
    lines += ["", f"Medians of {given.rounds} interleaved rounds of {given.steps} steps on {given.device}.", ""]
    lines += [f"- {name}: not run: {why}" for name, why in absent.items()]
    lines += [f"- verify {label(cell)}: {cell.status}{f' ({cell.reason})' if cell.reason else ''}" for cell in cells]
    return "\n".join(lines)


def told(figure: Figure) -> str:
    """A ratio with its interval."""
    interval = f" [{figure.ci95[0]:.3f}, {figure.ci95[1]:.3f}]" if figure.ci95 else ""
    return f"{figure.median:.3f}{interval}" if figure.median is not None else "–"


if __name__ == "__main__":
    sys.exit(main())
