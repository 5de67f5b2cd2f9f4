"""Recorded runs in the columns of published tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scalelab.record.schema import Figure, ModelFacts
from scalelab.studies.published.published import Assumed
from scalelab.studies.published.tables import check, read
from tests.docs.pages import ROOT
from tests.report.samples import record
from tests.report.test_write import keep


def rows(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(ROOT / "benchmarks" / "published.py"), *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def test_a_run_becomes_a_row_that_check_table_finds_consistent(tmp_path: Path) -> None:
    made, steps = record("ddp")
    done = rows(keep(tmp_path, made, steps))
    assert done.returncode == 0, done.stderr
    (tmp_path / "own.csv").write_text(done.stdout)
    (row,) = read(tmp_path / "own.csv")
    assert (row.gpus, row.batch_per_gpu) == (2, 32)
    assert row.compute_s == pytest.approx(22 * (made.compute_seconds.median or 0), rel=1e-3)
    assert row.bandwidth_gbs == pytest.approx(380_000 / (made.communication_seconds.total.median or 1) / 1e9, rel=1e-2)
    sent = ModelFacts(name="m", parameters=95_000, bytes=380_000, flops_per_image=Figure(unit="FLOP", reason="none"))
    found = check("own.csv", [row], sent, Assumed(samples=1437, drop_last=True))
    assert (found.impossible, found.doubtful) == (0, 0)


def test_a_run_that_sent_nothing_is_told(tmp_path: Path) -> None:
    made, steps = record("single")
    done = rows(keep(tmp_path, made, steps))
    assert done.returncode == 2
    assert "was not measured" in done.stderr


def test_as_a_table_each_figure_has_its_spread_its_interval_and_n(tmp_path: Path) -> None:
    made, steps = record("ddp")
    done = rows("--table", keep(tmp_path, made, steps))
    assert done.returncode == 0, done.stderr
    title, _, line = done.stdout.splitlines()
    names, cells = ([one.strip() for one in row.split("|")[1:-1]] for row in (title, line))
    found = dict(zip(names, cells, strict=True))
    step, sent, total = made.step_seconds, made.bytes_sent.median, made.communication_seconds.total
    assert step.ci95 is not None
    assert (found["workers × batch"], found["steps an epoch"]) == ("2 × 32", "22")
    assert found["a step, s"] == f"{step.median:.3g} ± {step.mad:.3g} [{step.ci95[0]:.3g} to {step.ci95[1]:.3g}], n = {step.n}"
    assert found["counted bytes / total, GB/s"].startswith(f"{(sent or 0) / (total.median or 1) / 1e9:.3g}")
