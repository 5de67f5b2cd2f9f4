"""``scalelab explain``: what each worker would hold and send, by formula, and counted beside it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scalelab import spec as specs
from scalelab.cli.flags import Parser, add_common, add_spec, values_of
from scalelab.cli.summary import tell_failure, tensors
from scalelab.cli.terminal import console, shown
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.asking import ask
from scalelab.launch.pool import Pool
from scalelab.record import text
from scalelab.spec import Spec
from scalelab.strategies import STRATEGIES, entry
from scalelab.strategies.formulas.explanation import SYMBOLS, Counted, Explained

EXAMPLE = """  scalelab explain zero3 --model resnet18 --data digits --workers 64 --batch 1024
  scalelab explain ddp --model resnet18 --data digits --workers 2 --count
  scalelab explain zero2 --engine deepspeed --workers 4 --json"""

FIXED = ("strategy", "epochs", "steps", "evaluate", "probe_steps", "warmup_steps", "checkpoint", "resume", "out", "name",
         "stop_after_epoch", "target_accuracy", "early_stop", "norm_slices")  # fmt: skip
"""fields that an explanation sets itself, or that change nothing in it"""


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    parser = Parser(
        "explain",
        "What each worker holds, what travels in a step, how many bytes, when: formulas with their sources, for this model and batch.",
        EXAMPLE,
    )
    strategies = ", ".join(STRATEGIES) + " or path/to/file.py:Class"
    parser.add_argument("strategy", nargs="?", metavar="STRATEGY", default=argparse.SUPPRESS, help=strategies)
    add_spec(parser, leave_out=FIXED)
    parser.add_argument(
        "--count", action="store_true", help="train a few steps on real workers, and show what they sent and held"
    )
    add_common(parser)
    parsed = parser.parse(words)
    spec = _spec(parsed)
    err = console(to_stderr=True)
    with Pool() as pool:
        pool.warm()
        explained = msgspec.convert(ask(pool, "scalelab.worker.explain:explain", spec), Explained)
        counted = _count(pool, spec, err, debug) if parsed.count else None
    explained = msgspec.structs.replace(explained, counted=counted)
    if parsed.json:
        print(msgspec.json.encode(explained).decode())
    else:
        show(console(), explained)
    return 1 if parsed.count and counted is None else 0


def _spec(parsed: Any) -> Spec:
    """The spec that is asked about: on 2 workers unless said otherwise. Raises ScalelabError."""
    values = values_of(parsed)
    if not values.get("strategy"):
        raise ScalelabError(f"which strategy? `scalelab explain NAME`, NAME one of {', '.join(STRATEGIES)}")
    several = entry(str(values["strategy"])).axis is not None
    return specs.from_mapping({"workers": 2 if several else 1, **values}, flags=True)


def _count(pool: Pool, spec: Spec, err: Console, debug: bool) -> Counted | None:
    """What real workers send and hold in a probe step; None when they fail, which is told."""
    with tempfile.TemporaryDirectory(prefix="scalelab-explain-") as scratch:
        short = msgspec.structs.replace(
            spec, out=scratch, epochs=None, steps=2, probe_steps=1, warmup_steps=0, evaluate=False, checkpoint=False, resume=None
        )
        record = training.train(
            pool, training.prepare(pool, short), [sys.executable, "-m", "scalelab", *sys.argv[1:]], lambda folder: None
        )
        if record.failure is not None:
            tell_failure(err, record, None, debug)
            return None
    return Counted(bytes_sent=record.bytes_sent, memory=record.memory_bytes)


def show(out: Console, found: Explained) -> None:
    """The tables of what is held and what is sent, with the letters and notes that they need."""
    derived, model = found.derived, found.model
    out.print(
        f"{found.strategy} by {found.engine} on {found.workers} worker{'s' * (found.workers > 1)}, over {found.backend}: "
        f"{model.name} ({model.parameters:,} parameters) on {found.data.name}",
        markup=False,
    )
    out.print(
        f"batch {derived.batch} = micro-batch {derived.micro_batch} x accumulate {derived.accumulate} x {derived.replicas} replicas",
        markup=False,
    )
    held = [(part.what, text.size(part.bytes), part.formula, part.note) for part in found.held]
    held.append(("sum", text.size(sum(part.bytes for part in found.held)), "", ""))
    out.print(_table("each worker holds, at most", ("", "bytes", "formula", "note"), held))
    sent = [(part.what, part.collective, text.size(part.bytes), part.formula, part.when) for part in found.sent]
    if sent:
        sent.append(("sum", "", text.size(found.total_sent), "", ""))
        columns = ("", "collective", "bytes", "formula", "when")
        out.print(_table("each worker sends in a step, mean over the workers", columns, sent))
    else:
        out.print("nothing is sent")
    for letter, value in found.symbols.items():
        out.print(f"{letter} = {value:,}: {SYMBOLS.get(letter, letter)}", markup=False)
    for part in found.sent:
        if part.note:
            out.print(f"{part.collective} of {part.what}: {part.note}", markup=False)
    for note in found.notes:
        out.print(note, markup=False)
    sources = dict.fromkeys(source for source in (*(h.source for h in found.held), *(s.source for s in found.sent)) if source)
    out.print(f"sources: {'; '.join(sources)}", markup=False, style="dim")
    if found.counted is not None:
        _show_counted(out, found, found.counted)
    if found.config is not None:
        out.print(f"what {found.engine} is given:")
        out.print(json.dumps(found.config, indent=2), markup=False)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without the columns in which no row says anything."""
    said = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    table = Table(title=title, title_justify="left")
    for place in said:
        table.add_column(
            columns[place], justify="right" if columns[place] == "bytes" else "left", no_wrap=columns[place] == "bytes"
        )
    for number, row in enumerate(rows):
        table.add_row(*(escape(row[place]) for place in said), end_section=number == len(rows) - 2 and rows[-1][0] == "sum")
    return table


def _show_counted(out: Console, found: Explained, counted: Counted) -> None:
    sent, held = counted.bytes_sent, counted.memory.tensors
    ratio = f", {sent.median / found.total_sent:.4f} of the formula's" if sent.median and found.total_sent else ""
    out.print(f"counted in a real step: {shown(sent, text.size)} sent{ratio}", markup=False)
    if held is not None:
        out.print(f"held at its peak, by the worker with most: {tensors(held)}", markup=False)
        out.print(f"activations at theirs: {text.size(held.most_activations)}", markup=False)
