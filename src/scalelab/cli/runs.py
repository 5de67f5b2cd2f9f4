"""``scalelab runs``: the recorded runs, without opening a page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.markup import escape
from rich.table import Table

from scalelab.cli.flags import Parser, add_common
from scalelab.cli.summary import readable, summarise, tell_failure
from scalelab.cli.terminal import console
from scalelab.errors import ScalelabError, unknown
from scalelab.record import export, text
from scalelab.record import folder as records
from scalelab.record.naming import options, spread
from scalelab.record.schema import TrainRecord
from scalelab.report.compare import FIGURES, compare

EXAMPLE = """  scalelab runs list
  scalelab runs show latest
  scalelab runs compare ddp-1a2b3c zero3-4d5e6f
  scalelab runs export csv -o runs.csv"""

SHOW = {"images_per_second": text.rate, "memory_bytes.peak": text.size, "bytes_sent": text.size, "accuracy": text.percent}
"""how a figure is written; all others are seconds"""


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    parser = Parser("runs", "List, show, compare or export recorded runs.", EXAMPLE)
    parser.add_argument("action", metavar="|".join(ACTIONS), help="what to do; list when left out", nargs="?", default="list")
    parser.add_argument(
        "names",
        metavar="RUN",
        nargs="*",
        help="a run's folder, a unique part of its name, or latest; export: csv or parquet first",
    )
    parser.add_argument("--out", metavar="FOLDER", default="runs", help="folder that holds the runs (default runs)")
    parser.add_argument("-o", "--output", metavar="FILE", help="export: the file to write (default runs.csv or runs.parquet)")
    add_common(parser)
    parsed = parser.parse(words)
    if parsed.action not in ACTIONS:
        raise unknown("action", parsed.action, ACTIONS)
    return ACTIONS[parsed.action](parsed.names, Path(parsed.out), parsed.json, parsed.output)


def list_(names: list[str], out: Path, as_json: bool, output: str | None) -> int:
    """A line a run, newest last. What is not a record is named, and does not stop the list."""
    found = list(readable(names, out).values())
    if as_json:
        print(msgspec.json.encode(found).decode())
    elif not found:
        console().print(f"no runs in {out}; `scalelab train` or `scalelab demo` makes one", markup=False)
    else:
        table = Table(box=None, pad_edge=False)
        for column in ("run", "age", "status", "strategy", "workers", "model", "data"):
            table.add_column(column, no_wrap=column == "run")
        for column in ("images/s", "accuracy", "loss"):
            table.add_column(column, justify="right")
        for record in found:
            facts = (
                record.run,
                _age(record),
                record.status,
                spread(record.strategy, record.engine, options(record.spec)),
                record.workers,
                record.spec["model"],
                record.spec["data"],
            )
            results = (
                text.shown(record.images_per_second, text.rate),
                text.ABSENT if record.accuracy is None else text.percent(record.accuracy),
                f"{record.losses[-1]:.4f}" if record.losses else text.ABSENT,
            )
            table.add_row(*(escape(str(fact)) for fact in facts), *results)
        console().print(table)
    return 0


def show(names: list[str], out: Path, as_json: bool, output: str | None) -> int:
    """One or more runs, whole."""
    found = readable(names or ["latest"], out)
    loaded = list(found.values())
    if as_json:
        print(msgspec.json.encode(loaded[0] if len(loaded) == 1 else loaded).decode())
        return 0
    for folder, record in found.items():
        console().print(
            f"{record.name}: {record.strategy} on {record.workers} worker{'s' * (record.workers > 1)}, batch {record.derived.batch}",
            markup=False,
            style="bold",
        )
        summarise(console(), record, folder)
        if record.failure is not None:
            tell_failure(console(), record, folder, debug=False)
    return 0


def compare_(names: list[str], out: Path, as_json: bool, output: str | None) -> int:
    """Two runs: what was set differently, and which figures differ beyond chance."""
    if len(names) != 2:
        raise ScalelabError(f"compare takes two runs, not {len(names)}: scalelab runs compare A B")
    folders = records.find(names, out)
    a, b = (records.load(folder) for folder in folders)
    found = compare(a, b, *(list(records.read_steps(folder)) for folder in folders))
    if as_json:
        print(msgspec.json.encode(found).decode())
        return 0
    say = console()
    say.print(f"A {found.a}\nB {found.b}", markup=False)
    for title, differences in (("set differently", found.spec), ("environment", found.environment)):
        for difference in differences:
            say.print(f"{title}: {difference.key}  A {difference.a}  B {difference.b}", markup=False)
    table = Table()
    for column in ("", "A", "B", "B / A", "95 % interval", ""):
        table.add_column(column, justify="right" if column else "left")
    for row in found.figures:
        write = SHOW.get(row.name, text.seconds)
        verdict = "differs" if row.differs else "no difference shown" if row.ratio.ci95 else row.ratio.reason or ""
        table.add_row(
            row.name,
            text.shown(row.a, write),
            text.shown(row.b, write),
            text.shown(row.ratio, text.times),
            text.interval(row.ratio, text.times),
            verdict,
        )
    say.print(table)
    if found.loss.median is not None:
        say.print(f"largest relative difference of the losses: {found.loss.median:.1e}, at step {found.loss_step}")
    if not found.alike:
        say.print("model, data, precision or hardware differ: the ratios are not the strategy's alone", style="yellow")
    return 0


def export_(names: list[str], out: Path, as_json: bool, output: str | None) -> int:
    """All runs, or those named, as one flat table."""
    kind = names[0] if names and names[0] in export.WRITERS else "csv"
    chosen = names[1:] if names and names[0] in export.WRITERS else names
    path = export.write(list(readable(chosen, out).values()), Path(output or f"runs.{kind}"), kind)
    if as_json:
        print(msgspec.json.encode({"output": str(path)}).decode())
    else:
        console().print(str(path), markup=False)
    return 0


Action = Callable[[list[str], Path, bool, str | None], int]
ACTIONS: dict[str, Action] = {"list": list_, "show": show, "compare": compare_, "export": export_}
assert FIGURES.keys() >= SHOW.keys()


def _age(record: TrainRecord) -> str:
    started = datetime.fromisoformat(record.attempts[0].started)
    seconds = (datetime.now(UTC) - started).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
