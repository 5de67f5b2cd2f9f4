"""Recorded runs in the columns of published tables, for `scalelab check-table` and docs/published.md.

    python benchmarks/published.py RUN [RUN …] > own.csv
    python benchmarks/published.py --table RUN [RUN …]

Seconds are of an epoch of the run's data set; comm_s is the time in collectives, or with --exposed what it adds to the step;
bandwidth_gbs is bytes sent / time in collectives, as counted and measured in the run, not computed from the model's size.
``--table`` prints the same as Markdown, each figure with its spread, its 95 % interval and n.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.record.folder import load
from scalelab.record.schema import Figure, TrainRecord

COLUMNS = ("gpus", "batch_per_gpu", "compute_s", "comm_s", "bandwidth_gbs")
TITLES = (
    "workers × batch", "steps an epoch", "a step, s", "compute, s an epoch", "communication, total, s an epoch", "exposed, s an epoch",
    "counted bytes / total, GB/s",
)  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0, 2 for a user's mistake."""
    flags = argparse.ArgumentParser(description="recorded runs in the columns of published tables")
    flags.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    flags.add_argument("--exposed", action="store_true", help="comm_s: what communication adds to a step")
    flags.add_argument("--table", action="store_true", help="Markdown, with spread, interval and n of each figure")
    given = flags.parse_args(words)
    try:
        if given.table:
            print(table([load(folder) for folder in given.runs]))
            return 0
        lines = [row(load(folder), given.exposed) for folder in given.runs]
    except ScalelabError as error:
        print(f"benchmarks/published.py: {error}", file=sys.stderr)
        return error.exit_status
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    return 0


def row(record: TrainRecord, exposed: bool) -> list[object]:
    """One run as a line. Raises ScalelabError where a figure was not measured."""
    derived, data, times = record.derived, record.data, record.communication_seconds
    if data is None:
        raise ScalelabError(f"{record.run}: has not come to its data")
    steps = data.train // derived.batch
    total = measured(record, "communication, total", times.total)
    compute = measured(record, "compute", record.compute_seconds)
    added = measured(record, "communication, exposed", times.exposed) if exposed else total
    if added <= 0:
        raise ScalelabError(
            f"{record.run}: exposed communication is {times.exposed.reason}: no time can be printed; use more --probe-steps"
        )
    sent = measured(record, "bytes sent", record.bytes_sent)
    each = derived.batch // derived.replicas
    return [record.workers, each, *(f"{steps * seconds:.4g}" for seconds in (compute, added)), f"{sent / total / 1e9:.3g}"]


def table(records: Sequence[TrainRecord]) -> str:
    """The runs as a table in Markdown. Raises ScalelabError where one has not come to its data."""
    lines = [TITLES, ("---",) * len(TITLES)]
    for record in records:
        if record.data is None:
            raise ScalelabError(f"{record.run}: has not come to its data")
        steps, times = record.data.train // record.derived.batch, record.communication_seconds
        found = [
            f"{record.workers} × {record.derived.batch // record.derived.replicas}", f"{steps}", cell(record.step_seconds),
            *(cell(one, steps) for one in (record.compute_seconds, times.total, times.exposed)), cell(bandwidth(record)),
        ]  # fmt: skip
        lines.append(tuple(found))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bandwidth(record: TrainRecord) -> Figure:
    """Bytes sent over the time in collectives, in GB/s; the interval is the time's."""
    sent, total = record.bytes_sent, record.communication_seconds.total
    if sent.median is None or total.median is None:
        return Figure(unit="GB/s", reason=sent.reason or total.reason)
    ends = None if total.ci95 is None else (sent.median / total.ci95[1] / 1e9, sent.median / total.ci95[0] / 1e9)
    spread = None if total.mad is None else sent.median / total.median / 1e9 * total.mad / total.median
    return Figure(unit="GB/s", median=sent.median / total.median / 1e9, n=total.n, mad=spread, ci95=ends)


def cell(figure: Figure, times: float = 1) -> str:
    """``577 ± 80 [353 to 1120], n = 4``: median, spread, interval, n; the reason where there is one."""
    if figure.median is None:
        return figure.reason or "not measured"
    found = number(figure.median * times)
    if figure.mad is not None:
        found += f" ± {number(figure.mad * times)}"
    if figure.ci95 is not None:
        found += f" [{number(figure.ci95[0] * times)} to {number(figure.ci95[1] * times)}]"
    return f"{found}, n = {figure.n}{f': {figure.reason}' if figure.reason else ''}"


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def measured(record: TrainRecord, name: str, figure: Figure) -> float:
    """A figure's median. Raises ScalelabError where it is absent."""
    if figure.median is None:
        raise ScalelabError(f"{record.run}: {name} was not measured: {figure.reason}")
    return figure.median


if __name__ == "__main__":
    sys.exit(main())
