"""``scalelab verify``: the proof that a strategy computes what one process would."""

from __future__ import annotations

import argparse

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scalelab import spec as specs
from scalelab.cli.flags import Parser, add_common, add_spec, values_of
from scalelab.cli.places.placing import add_placing, check_all, launcher_of
from scalelab.cli.terminal import Observer, console
from scalelab.launch.launcher import Launcher
from scalelab.record import text
from scalelab.record.schema import Cell, VerifyRecord
from scalelab.spec import Spec
from scalelab.strategies import STRATEGIES
from scalelab.studies.verifying import verify as study
from scalelab.studies.verifying.variants import Variant, everything, grid, named

EXAMPLE = """  scalelab verify --model resnet18 --data digits
  scalelab verify --model my_model.py:build --data cifar10 --data-dir data/cifar10 --strategy ddp zero3 --workers 2
  scalelab verify --model resnet18 --data digits --workers 4 --all
  scalelab verify --strategy my_strategy.py:Mine --float32"""

FIXED = ("precision", "epochs", "evaluate", "probe_steps", "warmup_steps", "checkpoint", "resume", "out", "name", "stop_after_epoch",
         "target_accuracy", "early_stop", "dropout", "norm_slices", "smooth")  # fmt: skip
"""fields that a verification sets itself"""
DEFAULTS = {"workers": 2, "batch_norm": "sync", "augment": "auto", **study.DEFAULTS}
MARKS = {
    "passed": "[green]passed[/]",
    "failed": "[bold red]failed[/]",
    "not_applicable": "[yellow]not applicable[/]",
    "differs_by_design": "differs by design",
}


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status: 1 when a strategy fails, or none passes."""
    parser = Parser(
        "verify",
        "Train a few steps as single and as each strategy, on the same global batches in float64; compare losses, parameters and buffers.",
        EXAMPLE,
    )
    add_spec(parser, leave_out=FIXED, several=("strategy",))
    parser.add_argument(
        "--all",
        action="store_true",
        help="the whole table: every strategy, engine, schedule, hybrid and option for these workers",
    )
    parser.add_argument(
        "--grid", action="store_true", help="every strategy in odd shapes: 3 workers, odd batches, tied weights, a frozen layer …"
    )
    parser.add_argument("--float32", action="store_true", help="compute in float32: shows what rounding adds")
    add_placing(parser, commands=False)
    add_common(parser)
    parsed = parser.parse(words)
    err = console(to_stderr=True)
    with launcher_of(parsed) as launcher:
        result = _verified(launcher, parsed, err)
    if parsed.json:
        print(msgspec.json.encode(result).decode())
    else:
        show(console(), result)
    if not any(cell.status in ("passed", "differs_by_design") for cell in result.cells):
        err.print("nothing passed: no strategy was shown to compute what single does", style="bold red")
        return 1
    return 1 if any(cell.status == "failed" for cell in result.cells) else 0


def _verified(launcher: Launcher, parsed: argparse.Namespace, err: Console) -> VerifyRecord:
    """What the flags ask for, tried where ``launcher`` runs."""
    values = values_of(parsed, {**DEFAULTS, "workers": launcher.slots or DEFAULTS["workers"]})
    names, engine = values.pop("strategy", None), values.get("engine")
    base = specs.from_mapping(values, flags=True)
    wanted = _variants(base, [names] if isinstance(names, str) else names, None if engine is None else base.engine, parsed)
    check_all(launcher, base)
    with Observer(err, base.steps or 0) as observer:
        launcher.warm()
        return study.verify(launcher, base, wanted, parsed.float32, lambda cell: _tell(err, cell), observer)


def _variants(base: Spec, names: list[str] | None, engine: str | None, parsed: argparse.Namespace) -> list[Variant]:
    """What the flags ask for; ``--strategy`` and ``--engine`` beside ``--all`` or ``--grid`` pick cells of theirs."""
    if not (parsed.all or parsed.grid):
        return named(
            names or [n for n, row in STRATEGIES.items() if row.axis is not None and base.engine in row.where], base.engine
        )
    found = (everything(base) if parsed.all else []) + (grid(base) if parsed.grid else [])
    picked = [v for v in found if (not names or v.values["strategy"] in names) and engine in (None, v.values["engine"])]
    there = {v.values["strategy"] for v in picked}
    return picked + named([name for name in names or () if name not in there], base.engine)  # one's own; or to be refused by name


def _tell(err: Console, cell: Cell) -> None:
    err.print(f"{escape(study.label(cell))}: {MARKS[cell.status]}")


def show(out: Console, result: VerifyRecord) -> None:
    """The table of cells, what was compared, and the reasons."""
    table = Table(
        title=f"{escape(result.model)} on {escape(result.data)}, {result.steps} step{'s' * (result.steps > 1)} of batch {result.batch}: "
        "relative differences from single",
        title_justify="left",
    )
    for column in ("strategy", "workers", "", "loss", "parameters", "buffers", "at most"):
        table.add_column(column, justify="left" if column in ("strategy", "") else "right")
    for cell in result.cells:
        found = (cell.max_loss_difference, cell.max_parameter_difference, cell.max_buffer_difference)
        shown = [text.ABSENT if v is None else f"{v:.1e}" for v in found]
        limit = f"{cell.tolerance:g}" if cell.status in ("passed", "failed") else text.ABSENT
        table.add_row(escape(study.label(cell)), str(cell.workers), MARKS[cell.status], *shown, limit)
    out.print(table)
    reasons: dict[str, list[str]] = {}
    for cell in result.cells:
        if cell.reason:
            reasons.setdefault(cell.reason, []).append(study.label(cell))
    for reason, labels in reasons.items():
        out.print(f"{', '.join(labels)}: {reason}", markup=False)
    for note in result.notes:
        out.print(note, markup=False, style="dim")
