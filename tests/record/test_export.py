"""Flat tables of runs: CSV that no spreadsheet executes, Parquet with types, a run's steps."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from scalelab.errors import RunError, ScalelabError
from scalelab.record import export
from tests.report import samples


def test_rows_are_flat_and_have_equal_keys() -> None:
    table = export.rows(samples.demo()[0])
    assert len(table) == 6
    assert len({tuple(row) for row in table}) == 1
    assert all(value is None or isinstance(value, (str, int, float, bool)) for row in table for value in row.values())


def test_a_figure_keeps_its_interval_and_an_absent_one_its_reason() -> None:
    single, ddp = (export.rows([samples.record(key)[0]])[0] for key in ("single", "ddp"))
    assert ddp["images_per_second_low"] < ddp["images_per_second"] < ddp["images_per_second_high"]
    assert single["communication_seconds_exposed"] is None
    assert "nobody to talk to" in single["communication_seconds_exposed_reason"]


def test_csv_is_read_back(tmp_path: Path) -> None:
    records, _ = samples.demo()
    lines = list(csv.DictReader(export.write(records, tmp_path / "runs.csv", "csv").open()))
    assert [line["strategy"] for line in lines] == [record.strategy for record in records]
    assert float(lines[2]["images_per_second"]) == records[2].images_per_second.median
    assert lines[0]["communication_seconds_exposed"] == ""


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_users_text_never_becomes_a_formula(tmp_path: Path, start: str) -> None:
    record, _ = samples.record("ddp", name=start)
    line = next(csv.DictReader(export.write([record], tmp_path / "runs.csv", "csv").open(newline="")))
    assert line["name"] == "'" + start.replace("\r", "\n")


def test_a_carriage_return_begins_no_row(tmp_path: Path) -> None:
    record, _ = samples.record("ddp", name="a\r=1+1")
    assert b"\r" not in export.write([record], tmp_path / "runs.csv", "csv").read_bytes()


def test_negative_numbers_are_untouched() -> None:
    assert export.cell(-1.5) == -1.5
    assert export.cell("plain") == "plain"


def test_parquet_has_numbers_as_numbers(tmp_path: Path) -> None:
    records, _ = samples.demo()
    table = pq.read_table(export.write(records, tmp_path / "runs.parquet", "parquet"))
    assert table.num_rows == 6
    assert str(table.schema.field("images_per_second").type) == "double"
    assert str(table.schema.field("workers").type) == "int64"
    assert table.column("images_per_second").to_pylist() == [record.images_per_second.median for record in records]


def test_parquet_holds_columns_in_which_runs_disagree(tmp_path: Path) -> None:
    records = [samples.record("ddp")[0], samples.record("ddp")[0]]
    records[1].spec = {**records[1].spec, "lr": "auto", "warmup_epochs": 3}
    table = pq.read_table(export.write(records, tmp_path / "runs.parquet", "parquet"))
    assert table.column("spec.lr").to_pylist() == ["0.05", "auto"]
    assert table.column("spec.warmup_epochs").to_pylist() == [0.0, 3.0]


def test_an_unknown_format_lists_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="csv, parquet"):
        export.write(samples.demo()[0], tmp_path / "x", "xlsx")


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="no run"):
        export.write([], tmp_path / "x", "csv")


def test_an_unwritable_path_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        export.write(samples.demo()[0], tmp_path / "nowhere" / "runs.csv", "csv")
    assert list(tmp_path.iterdir()) == []


def test_steps_become_parquet_beside_their_lines(tmp_path: Path) -> None:
    _, steps = samples.record("ddp")
    (tmp_path / "steps.jsonl").write_bytes(b"".join(msgspec.json.encode(step) + b"\n" for step in steps))
    table = pq.read_table(export.steps_parquet(tmp_path))
    assert table.column_names == list(steps[0].__struct_fields__)
    assert table.column("loss").to_pylist() == [step.loss for step in steps]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["steps.jsonl", "steps.parquet"]


def test_no_steps_give_an_empty_table_with_the_same_types(tmp_path: Path) -> None:
    table = pq.read_table(export.steps_parquet(tmp_path))
    assert table.num_rows == 0
    assert str(table.schema.field("bytes_sent").type) == "int64"


def test_export_and_compare_show_the_same_figures() -> None:
    from scalelab.record.export import FIGURES
    from scalelab.report.compare import FIGURES as COMPARED

    assert list(COMPARED) == [*FIGURES, "accuracy"]
