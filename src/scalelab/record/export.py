"""Records as flat tables: CSV for spreadsheets, Parquet for data frames; a run's steps as Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from scalelab.errors import ScalelabError, unknown
from scalelab.record.folder import read_steps, write_atomic
from scalelab.record.schema import Figure, Step, TrainRecord

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n")

NOT_SAMPLED = "resources were not sampled"
FIGURES: dict[str, Callable[[TrainRecord], Figure]] = {
    "images_per_second": lambda r: r.images_per_second,
    "step_seconds": lambda r: r.step_seconds,
    "compute_seconds": lambda r: r.compute_seconds,
    "communication_seconds.total": lambda r: r.communication_seconds.total,
    "communication_seconds.exposed": lambda r: r.communication_seconds.exposed,
    "communication_seconds.hidden": lambda r: r.communication_seconds.hidden,
    "data_wait_seconds": lambda r: r.data_wait_seconds,
    "memory_bytes.peak": lambda r: r.memory_bytes.peak,
    "bytes_sent": lambda r: r.bytes_sent,
    "model.flops_per_image": lambda r: r.model.flops_per_image if r.model else Figure(unit="FLOP", reason="no model"),
    "resources.cpu_percent": lambda r: r.resources.cpu_percent if r.resources else Figure(unit="%", reason=NOT_SAMPLED),
    "resources.gpu_percent": lambda r: r.resources.gpu_percent if r.resources else Figure(unit="%", reason=NOT_SAMPLED),
    "resources.power_watts": lambda r: r.resources.power_watts if r.resources else Figure(unit="W", reason=NOT_SAMPLED),
}
"""the figures of a record, by their names there; a table's column has ``_`` for ``.``"""


def cell(value: Any) -> Any:
    """``value`` for a CSV cell: text that a spreadsheet would run as a formula gets a leading ``'``; numbers pass."""
    if not isinstance(value, str):
        return value
    # The csv module leaves a lone carriage return unquoted: readers would begin a row there.
    line = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{line}" if line.startswith(FORMULA_STARTS) else line


def rows(records: Sequence[TrainRecord]) -> list[dict[str, Any]]:
    """One flat dict per run, equal keys in all. Absent values are None, never 0.

    A figure gives the keys ``NAME``, ``NAME_n``, ``NAME_mad``, ``NAME_low``, ``NAME_high`` and ``NAME_reason``; the spec's are
    ``spec.KEY``.
    """
    spec_keys = list(dict.fromkeys(key for record in records for key in record.spec))
    return [_row(record, spec_keys) for record in records]


def _row(record: TrainRecord, spec_keys: Sequence[str]) -> dict[str, Any]:
    environment = record.environment
    row: dict[str, Any] = {
        "run": record.run,
        "name": record.name,
        "status": record.status,
        "started": record.attempts[0].started if record.attempts else None,
        "attempts": sum(one.began for one in record.attempts),
        "strategy": record.strategy,
        "engine": record.engine,
        "workers": record.workers,
        **{key: _scalar(value) for key, value in msgspec.to_builtins(record.derived).items()},
        "shares": ":".join(map(str, record.derived.shares)) or None,
        "parameters": record.model.parameters if record.model else None,
        "train_samples": record.data.train if record.data else None,
        "test_samples": record.data.test if record.data else None,
        "steps": record.steps,
        "seconds": record.seconds,
        "epochs": len(record.epochs),
        "last_loss": record.losses[-1] if record.losses else None,
        "accuracy": record.accuracy,
        "best_accuracy": record.best_accuracy,
        "failure": record.failure.error if record.failure else None,
        "device": environment.device,
        "backend": environment.backend,
        "hosts": " ".join(host.name for host in environment.hosts),
        "git_commit": environment.git_commit,
    }
    for name, read in FIGURES.items():
        row |= _figure(name.replace(".", "_"), read(record))
    return row | {f"spec.{key}": _scalar(record.spec.get(key)) for key in spec_keys}


def _figure(name: str, figure: Figure) -> dict[str, Any]:
    low, high = figure.ci95 or (None, None)
    return {
        name: figure.median,
        f"{name}_n": figure.n,
        f"{name}_mad": figure.mad,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_reason": figure.reason,
    }


def _scalar(value: Any) -> Any:
    return json.dumps(value, sort_keys=True, default=str) if isinstance(value, (dict, list, tuple)) else value


def write(records: Sequence[TrainRecord], path: Path, format: Literal["csv", "parquet"] | str) -> Path:
    """Write ``rows(records)`` to ``path``, atomically.

    Raises ScalelabError for another format or no record, RunError when it cannot.
    """
    if format not in WRITERS:
        raise unknown("export format", format, WRITERS)
    if not records:
        raise ScalelabError("there is no run to export; `scalelab runs list` shows them")
    write_atomic(path, WRITERS[format](rows(records)))
    return path


def _csv(table: Sequence[dict[str, Any]]) -> bytes:
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([cell(key) for key in table[0]])
    writer.writerows([cell(value) for value in row.values()] for row in table)
    return output.getvalue().encode()


def _parquet(table: Sequence[dict[str, Any]]) -> bytes:
    return _parquet_columns({key: _column([row[key] for row in table]) for key in table[0]})


def _column(values: Sequence[Any]) -> list[Any]:
    """Values of one type: a column in which runs disagree (text here, a number there) becomes text; int and float mix."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds == {int, float}:
        return [float(v) if v is not None and kinds == {int, float} else v for v in values]
    return [None if value is None else str(value) for value in values]


def _parquet_columns(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow as pa  # 0.2 s to import, and only Parquet needs it
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue())


WRITERS: dict[str, Callable[[Sequence[dict[str, Any]]], bytes]] = {"csv": _csv, "parquet": _parquet}


def steps_parquet(folder: Path) -> Path:
    """Write ``steps.parquet`` beside ``steps.jsonl``, atomically; without steps, an empty table of the same columns."""
    steps = list(read_steps(folder))
    fields = Step.__struct_fields__
    path = folder / "steps.parquet"
    write_atomic(path, _steps_bytes({name: [getattr(step, name) for step in steps] for name in fields}))
    return path


def _steps_bytes(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"step": pa.int64(), "epoch": pa.int64(), "batch": pa.int64(), "bytes_sent": pa.int64()}
    arrays = {name: pa.array(values, type=kinds.get(name, pa.float64())) for name, values in columns.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return bytes(sink.getvalue())
