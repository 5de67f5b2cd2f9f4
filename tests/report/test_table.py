"""Speedup, efficiency and differences: against the right base, or absent with the reason."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import msgspec
import pytest

from scalelab.measure.statistics import differs, quotient
from scalelab.record.schema import Cell, Environment, Figure, Host
from scalelab.report import table
from scalelab.report.subject import Subject
from tests.report import samples


def derived(record, **changes):
    return msgspec.structs.replace(record, derived=msgspec.structs.replace(record.derived, **changes))


def by_label(records, verify=None):
    return {row.label: row for row in table.rows(records, verify)}


def test_speedup_is_the_ratio_to_single_with_equal_threads() -> None:
    records, _ = samples.demo()
    row = by_label(records)["ddp × 2"]
    assert row.base == "single"
    assert row.speedup.median == records[2].images_per_second.median / records[0].images_per_second.median
    assert row.efficiency.median == row.speedup.median / 2
    low, high = row.speedup.ci95
    assert low < row.speedup.median < high


def test_all_cores_is_measured_against_the_thread_of_one_worker_and_has_no_efficiency() -> None:
    row = by_label(samples.demo()[0])["single (all cores)"]
    assert row.base == "single"
    assert row.efficiency.median is None
    assert "threads" in row.efficiency.reason


def test_without_a_base_speedup_is_absent_and_says_which_is_missing() -> None:
    row = table.rows([samples.record("ddp")[0]])[0]
    assert row.speedup.median is None
    assert "no 'single' run" in row.speedup.reason
    assert "1 thread per worker" in row.speedup.reason


def test_single_with_other_threads_is_no_base() -> None:
    row = by_label([samples.record("all")[0], samples.record("ddp")[0]])["ddp × 2"]
    assert row.speedup.median is None


def test_oversubscribed_runs_claim_no_efficiency() -> None:
    records, _ = samples.demo()
    records[2] = derived(records[2], oversubscribed=True)
    row = by_label(records)["ddp × 2"]
    assert row.speedup.median is not None
    assert row.efficiency.median is None
    assert "oversubscribed" in row.efficiency.reason


@pytest.mark.parametrize("change", [{"model": "resnet18"}, {"data": "cifar10"}, {"precision": "bf16"}, {"image_size": 64}])
def test_another_task_is_no_base(change: dict[str, object]) -> None:
    records = [samples.record("single", spec=change)[0], samples.record("ddp")[0]]
    assert by_label(records)["ddp × 2"].speedup.median is None


def test_another_processor_is_no_base() -> None:
    base, _ = samples.record("single", environment=Environment(hosts=[Host(name="old", processor="8086")], device="cpu"))
    rows = table.rows([base, samples.record("ddp")[0]])
    assert rows[1].speedup.median is None
    assert rows[0].task != rows[1].task


def test_the_base_with_the_same_global_batch_is_preferred() -> None:
    other = derived(samples.record("single", seed=9)[0], batch=32)
    records = [other, samples.record("single")[0], samples.record("ddp")[0]]
    assert table.rows(records)[2].base == table.rows(records)[1].label


def test_a_base_with_an_unrelated_batch_is_told() -> None:
    records = [derived(samples.record("single")[0], batch=48), samples.record("ddp")[0]]
    assert "batch 48" in table.rows(records)[1].speedup.reason


def test_weak_scaling_is_a_fair_base() -> None:
    records = [derived(samples.record("single")[0], batch=32), samples.record("ddp")[0]]
    assert table.rows(records)[1].speedup.reason is None


def test_a_completed_base_is_preferred_to_a_failed_one() -> None:
    died = msgspec.structs.replace(samples.record("single", seed=5)[0], status="failed")
    rows = table.rows([samples.record("single")[0], died, samples.record("ddp")[0]])
    assert rows[2].base == rows[0].label


def test_labels_are_unique_and_tell_what_differs() -> None:
    records = [samples.record("ddp")[0], samples.record("ddp", spec={"precision": "bf16"})[0], samples.record("zero1")[0]]
    assert [row.label for row in table.rows(records)] == ["ddp × 2 · fp32", "ddp × 2 · bf16", "zero1 × 2"]


def test_equal_records_still_get_unique_labels() -> None:
    records = [samples.record("ddp")[0]] * 3
    assert len({row.label for row in table.rows(records)}) == 3


def test_differences_come_from_verify() -> None:
    records, _ = samples.demo()
    rows = by_label(records, samples.verify())
    assert rows["ddp × 2"].difference.median == 3.1e-15
    assert rows["single"].difference.median is None


def test_a_failed_cell_is_told() -> None:
    found = samples.verify()
    found.cells[0] = Cell(
        strategy="ddp", workers=2, status="failed", max_loss_difference=0.3, reason="gradients are not averaged"
    )
    assert "gradients are not averaged" in by_label(samples.demo()[0], found)["ddp × 2"].difference.reason


@pytest.mark.parametrize(("spec", "difference"), [({}, 0.1), ({"recompute": True}, 0.2), ({"sync_every": 3}, None)])
def test_a_run_is_shown_the_cell_with_its_own_options(spec, difference) -> None:
    cells = [
        Cell(strategy="ddp", workers=2, status="passed", max_loss_difference=0.1, options={"pipeline_schedule": "1f1b"}),
        Cell(strategy="ddp", workers=2, status="passed", max_loss_difference=0.2, options={"recompute": True}),
    ]  # 1f1b is the default: saying it is no option
    record, _ = samples.record("ddp", spec=spec)
    found = table.matching_cell(record, msgspec.structs.replace(samples.verify(), cells=cells))
    assert (found.max_loss_difference if found else None) == difference


def test_verify_of_another_model_is_not_used() -> None:
    found = msgspec.structs.replace(samples.verify(), model="resnet18")
    row = by_label(samples.demo()[0], found)["ddp × 2"]
    assert row.difference.median is None
    assert "resnet18" in row.difference.reason


def test_a_quotient_without_intervals_claims_nothing() -> None:
    found = quotient(Figure(unit="x", median=9, n=1), Figure(unit="x", median=1, n=1))
    assert found.median == 9
    assert found.ci95 is None
    assert not differs(found)


def test_a_quotients_interval_covers_the_bootstraps() -> None:
    """MOVER on the runs' own intervals agrees with resampling the raw blocks."""
    import numpy as np

    from scalelab.measure.statistics import figure, ratio

    rng = np.random.default_rng(3)
    a, b = rng.normal(160, 6, 40).tolist(), rng.normal(100, 4, 40).tolist()
    found, expected = quotient(figure(a, "x"), figure(b, "x")), ratio(a, b)
    assert found.median == pytest.approx(expected.median)
    assert found.ci95 == pytest.approx(expected.ci95, rel=0.01)


def test_csv_has_a_row_per_run_and_empty_cells_for_absent_figures() -> None:
    records, _ = samples.demo()
    lines = list(csv.DictReader(io.StringIO(table.csv(Subject(records, "t", "q")))))
    assert len(lines) == 6
    assert lines[0]["exposed"] == ""
    assert lines[0]["exposed_reason"]
    assert float(lines[2]["speedup"]) > 1


def test_csv_formulas_are_text() -> None:
    record, _ = samples.record("ddp", spec={"name": '=HYPERLINK("evil")'})
    line = next(csv.DictReader(io.StringIO(table.csv(Subject([record], "t", "q")))))
    assert line["label"].startswith("'=")


def test_importing_the_report_does_not_import_torch() -> None:
    code = "import sys, json, scalelab.report; print(json.dumps([m for m in ('torch', 'pyarrow') if m in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []
