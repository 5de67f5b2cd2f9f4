"""``scalelab check-table``: can the numbers of a published table be right?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scalelab import spec as specs
from scalelab.cli.flags import Parser, add_common
from scalelab.cli.numbers import positive, whole
from scalelab.cli.terminal import console
from scalelab.launch.asking import ask
from scalelab.launch.pool import Pool
from scalelab.record import text
from scalelab.record.schema import ModelFacts
from scalelab.studies.published.published import WIDTHS, Assumed, Checked, TableCheck, Verdict, as_printed
from scalelab.studies.published.tables import FORM, LARGEST, check, read

EXAMPLE = """  scalelab check-table table.csv --model resnet18 --samples 50000
  scalelab check-table table.csv --model resnet50 --samples 1281167 --classes 1000 --image-size 224 --dtype fp16 --link-gbs 25"""


def run(words: list[str], debug: bool) -> int:
    """The command; its exit status: 1 where a cell is impossible."""
    given = _parser().parse(words)
    rows = read(Path(given.file))
    assumed = Assumed(
        samples=given.samples, dtype=given.dtype, per=given.per, drop_last=given.drop_last, link_gbs=given.link_gbs,
        peak_tflops=given.peak_tflops,
    )  # fmt: skip
    spec = specs.from_mapping({"model": given.model, "classes": given.classes, "image_size": given.image_size}, flags=True)
    with Pool() as pool:
        model = msgspec.convert(ask(pool, "scalelab.worker.model_facts:ask", spec), ModelFacts)
    found = check(given.file, rows, model, assumed)
    if given.json:
        print(msgspec.json.encode(found).decode())
    else:
        show(console(), found)
    return 1 if found.impossible else 0


def _parser() -> Parser:
    parser = Parser(
        "check-table",
        "Recompute the bandwidths of a published table from its times and its model's bytes, and name the cells that can't be right.",
        EXAMPLE,
    )
    parser.add_argument("file", metavar="FILE.csv", help=FORM)
    parser.add_argument("--model", required=True, metavar="NAME", help="as in train: what the table's gradients are those of")
    parser.add_argument(
        "--samples",
        required=True,
        type=partial(whole, "--samples", most=LARGEST - 1),
        metavar="N",
        help="training samples of an epoch",
    )
    parser.add_argument("--classes", default="10", metavar="N", help="of the data set (default 10)")
    parser.add_argument("--image-size", default="32", metavar="N", help="height and width of the images (default 32)")
    parser.add_argument("--dtype", choices=sorted(WIDTHS), default="fp32", help="of the gradients (default fp32)")
    parser.add_argument("--per", choices=("epoch", "step"), default="epoch", help="what the seconds are of (default epoch)")
    parser.add_argument("--drop-last", action="store_true", help="an epoch has no partial batch (default: it is trained on)")
    parser.add_argument(
        "--link-gbs",
        type=partial(positive, "--link-gbs"),
        metavar="X",
        help="what leaves a GPU at most, GB/s (default: of any link today)",
    )
    parser.add_argument(
        "--peak-tflops", type=partial(positive, "--peak-tflops"), metavar="X", help="of one GPU (default: of the fastest today)"
    )
    add_common(parser)
    return parser


def show(out: Console, found: TableCheck) -> None:
    """The rows, what is wrong with them, what that rests on, and the answer. Equal rows, and equal verdicts, are shown once."""
    table = Table(title="printed, and what follows from it", title_justify="left")
    for name in (
        "line",
        "GPUs",
        "batch",
        "compute",
        "comm",
        "printed",
        "steps",
        "sent a step",
        "alg. bw",
        "bus bw",
        "printed / bus",
    ):
        table.add_column(name, justify="right")
    alike: dict[tuple[str, ...], list[int]] = {}
    said: dict[Verdict, list[int]] = {}
    for row in found.rows:
        alike.setdefault(tuple(_cells(row)), []).append(row.printed.line)
        for verdict in row.verdicts:
            said.setdefault(verdict, []).append(row.printed.line)
    for cells, lines in alike.items():
        table.add_row(ranges(lines), *(escape(cell) for cell in cells))
    out.print(table)
    for verdict, lines in said.items():
        where = f"line{'s' * (len(lines) > 1)} {ranges(lines)}, {verdict.cell}"
        assumes = f" (assumes {verdict.assumes})" if verdict.assumes else ""
        out.print(f"{where}: {verdict.level}: {verdict.text}{assumes}", markup=False, soft_wrap=True)
    for assumption in found.assumptions:
        out.print(f"assumed: {assumption}", markup=False, style="dim", soft_wrap=True)
    out.print(found.answer, markup=False, style="bold", soft_wrap=True)


def ranges(lines: Sequence[int]) -> str:
    """Ascending numbers, those that follow each other as one: ``2-5, 7``."""
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][-1] + 1:
            parts[-1][1:] = [line]
        else:
            parts.append([line])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _cells(row: Checked) -> list[str]:
    """The cells of a row but the first, its line's number."""

    def gbs(value: float | None, show: Callable[[float], str] = text.number) -> str:
        return text.ABSENT if value is None else f"{show(value)} GB/s"

    def seconds(value: float | None) -> str:
        return text.ABSENT if value is None else f"{as_printed(value)} s"

    printed = row.printed
    return [
        str(printed.gpus), str(printed.batch_per_gpu), seconds(printed.compute_s), seconds(printed.comm_s),
        gbs(printed.bandwidth_gbs, as_printed), f"{row.steps:,}", text.prefixed(row.sent_bytes, "B"), gbs(row.algorithm_gbs),
        gbs(row.bus_gbs), text.ABSENT if row.ratio is None else text.number(row.ratio),
    ]  # fmt: skip
