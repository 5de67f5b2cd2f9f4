"""Recorded runs in the columns of published tables, for `scalelab check-table` and docs/published.md.

    python benchmarks/published.py RUN [RUN …] > own.csv

Seconds are of an epoch of the run's data set; comm_s is the time in collectives, or with --exposed what it adds to the step;
bandwidth_gbs is bytes sent / time in collectives, as counted and measured in the run, not computed from the model's size.
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


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0, 2 for a user's mistake."""
    flags = argparse.ArgumentParser(description="recorded runs in the columns of published tables")
    flags.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    flags.add_argument("--exposed", action="store_true", help="comm_s: what communication adds to a step")
    given = flags.parse_args(words)
    try:
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


def measured(record: TrainRecord, name: str, figure: Figure) -> float:
    """A figure's median. Raises ScalelabError where it is absent."""
    if figure.median is None:
        raise ScalelabError(f"{record.run}: {name} was not measured: {figure.reason}")
    return figure.median


if __name__ == "__main__":
    sys.exit(main())
