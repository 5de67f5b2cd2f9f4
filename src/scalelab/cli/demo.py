"""``scalelab demo``: the first thing to run."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import msgspec
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scalelab.cli.flags import Parser, add_common
from scalelab.cli.numbers import whole
from scalelab.cli.summary import tell_failure
from scalelab.cli.terminal import Observer, console
from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.measure.environment import usable_cores
from scalelab.report import write
from scalelab.report.answer import sentence
from scalelab.report.columns import COLUMNS, Notes, cells, describe
from scalelab.report.table import Row, rows
from scalelab.studies import demo

EXAMPLE = """  scalelab demo
  scalelab demo --out my-runs -o demo.html --json"""


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    parser = Parser("demo", demo.QUESTION, EXAMPLE)
    parser.add_argument("--out", metavar="FOLDER", default="runs", help="folder in which run folders are made (default runs)")
    parser.add_argument("-o", "--output", metavar="FILE", default="report.html", help="the report (default report.html)")
    parser.add_argument(
        "--steps", metavar="N", type=partial(whole, "--steps"), default=160, help="optimizer steps of each training (default 160)"
    )
    add_common(parser)
    parsed = parser.parse(words)
    if not Path(parsed.output).parent.is_dir():
        raise ScalelabError(f"-o {parsed.output!r}: the folder does not exist; make it, or choose another")
    err, began = console(to_stderr=True), time.monotonic()
    err.print(f"{demo.QUESTION}\n", markup=False, style="bold")
    err.print("starting the worker server: it imports torch once for all trainings", markup=False)
    with Pool() as pool:
        pool.warm()
        with Observer(err, parsed.steps) as observer:
            found = demo.run(
                pool,
                parsed.out,
                usable_cores(),
                parsed.steps,
                observer,
                lambda cell: err.print(f"verify {cell.strategy}: {cell.status}"),
            )
    answer = sentence(found.records)
    path = write(
        found.folders,
        Path(parsed.output),
        "html",
        "scalelab demo: five ways of spreading a training",
        demo.QUESTION,
        answer,
        found.verified,
    )
    if parsed.json:
        document = {
            "study": "demo", "question": demo.QUESTION, "answer": answer, "rows": rows(found.records, found.verified),
            "runs": [str(folder) for folder in found.folders], "verify": found.verified, "report": str(path),
        }  # fmt: skip
        print(msgspec.json.encode(document).decode())
    else:
        show(console(), rows(found.records, found.verified), answer)
        console().print(f"\nreport: {path}  ({time.monotonic() - began:.0f} s; records in {parsed.out}/)", markup=False)
    failed = [(f, r) for f, r in zip(found.folders, found.records, strict=True) if r.failure is not None]
    for folder, record in failed:
        tell_failure(err, record, folder, debug)
    return 1 if failed or any(cell.status == "failed" for cell in found.verified.cells) else 0


NARROW = ("images/s", "speedup", "eff.", "exposed", "memory", "acc.", "diff.")
"""headings where the terminal has no room for the page's, and for intervals"""
WIDE = 130


def show(out: Console, table_rows: list[Row], answer: str) -> None:
    """The comparison table with its footnotes, and the answer. Intervals stand below the figures where there is room."""
    wide, notes = out.width >= WIDE, Notes()
    table = Table(box=HEAVY_HEAD if wide else None, pad_edge=wide, padding=(0, 1) if wide else (0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column, short in zip(COLUMNS, NARROW, strict=True):
        table.add_column(f"{column.name}\n[dim]{column.unit}[/]" if wide else short, justify="right", no_wrap=not wide)
    for row in table_rows:
        shown = cells(row, table_rows, notes)
        marked = [f"{c.main}{f' ({c.note})' if c.note else ''}" for c in shown]
        if wide:
            below = [f"\n[dim]{c.sub}[/]" if c.sub else "" for c in shown]
            table.add_row(f"{escape(row.label)}\n[dim]{escape(describe(row))}[/]", *map("".join, zip(marked, below, strict=True)))
        else:
            table.add_row(escape(row.label), *marked)
    out.print(table)
    for place, reason in enumerate(notes.texts, 1):
        out.print(f"({place}) {reason}", markup=False, style="dim")
    out.print(f"\n{answer}", markup=False, style="bold")
