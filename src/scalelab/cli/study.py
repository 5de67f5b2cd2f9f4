"""``scalelab study NAME``: a question of the field, answered by trainings that are planned, run and analysed together."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
from rich.markup import escape
from rich.table import Table as Grid

from scalelab import spec as specs
from scalelab.cli.flags import Parser, add_common, add_spec, values_of
from scalelab.cli.terminal import Observer, console
from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.measure.environment import usable_cores
from scalelab.report.study import SHOW, write
from scalelab.studies import STUDIES, load, running
from scalelab.studies.study import Asked, Study

FIXED = ("name", "resume", "out", "stop_after_epoch")


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status."""
    if not words or words[0].startswith("-"):
        raise ScalelabError(f"which study? one of {', '.join(STUDIES)}; `scalelab study weak-scaling --help` shows its flags")
    study = load(words[0])
    parser = Parser(f"study {study.name}", study.question, study.example)
    parser.add_argument("--quick", action="store_true", help="small and once: a first look within minutes")
    parser.add_argument(
        "--repeats", metavar="N", type=int, help=f"trainings of each point, interleaved (default {study.repeats})"
    )
    parser.add_argument("--out", dest="folder", metavar="FOLDER", help="the study's folder: the same command goes on there")
    add_spec(parser, leave_out=FIXED, several=tuple(study.varies))
    add_common(parser)
    parsed = parser.parse(words[1:])
    asked = asked_for(study, parsed)
    repeats = parsed.repeats or (1 if parsed.quick else study.repeats)
    digest = hashlib.sha256(msgspec.json.encode(running.identity(study, asked))).hexdigest()[:8]
    folder = Path(parsed.folder or f"studies/{study.name}-{digest}")
    err = console(to_stderr=True)
    with Pool() as pool, Observer(err, asked.base.steps or 0) as observer:
        pool.warm()
        planned = running.plan(pool, study, asked, repeats, folder)
        record = running.carry_out(pool, planned, observer, lambda record: None)
    record.report = str(write(folder, record))
    running.save(folder, record)
    if parsed.json:
        print(msgspec.json.encode(record).decode())
    else:
        show(record)
    return 0 if record.status == "completed" else 1


def asked_for(study: Study, parsed: Any) -> Asked:
    """The flags as a question. Raises ScalelabError."""
    changes = {**study.base, **study.varies}
    if parsed.quick:
        changes |= study.quick
    values = values_of(parsed, changes)
    varied = {
        name: [_typed(name, value) for value in _listed(values.pop(name, None) or study.varies[name])] for name in study.varies
    }
    base = specs.from_mapping(values, flags=True)
    return Asked(base, varied, {}, parsed.quick, usable_cores())


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _typed(name: str, value: Any) -> Any:
    return getattr(specs.from_mapping({name: value}, flags=True), name)


def show(record: Any) -> None:
    """The tables and the answer."""
    out = console()
    for table in record.tables:
        grid = Grid(title=table.title, title_justify="left")
        for column in table.columns:
            grid.add_column(f"{column.title}" + (f"\n[dim]{column.sub}[/]" if column.sub else ""))
        for row in table.rows:
            cells = []
            for column in table.columns:
                if column.key in row.figures:
                    figure = row.figures[column.key]
                    cells.append("–" if figure.median is None else SHOW[column.show](figure.median))
                else:
                    cells.append(escape(str(row.factors.get(column.key, ""))))
            grid.add_row(*cells)
        out.print(grid)
    out.print(record.answer, markup=False, style="bold")
    for note in record.notes:
        out.print(note, markup=False, style="dim")
    out.print(f"report: {record.report}", markup=False)
