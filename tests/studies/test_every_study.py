"""What every study in the registry must do, with small real trainings: answer, fill its table or say why not, draw its page."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser

from scalelab import studies
from scalelab.record.study import StudyRecord
from tests import browsing
from tests.ceilings import ceilings as ceilings
from tests.cluster.conftest import cluster as cluster
from tests.cluster.host import Host
from tests.conftest import Command, Ended
from tests.docs.test_tools import faults, schema

SMALL: list[object] = [
    "--quick", "--data", "synthetic", "--image-size", 8, "--classes", 4, "--train-limit", 96, "--test-limit", 30,
    "--model-arg", "width=4",
]  # fmt: skip
SMALLER: dict[str, list[object]] = {
    "batch-size": ["--batch", 12, 24, "--threads-per-worker", 1],
    "weak-scaling": ["--batch-per-worker", 12],
    "strong-scaling": ["--batch", 24],
    "communication": ["--batch-per-worker", 12],
    "pipeline": ["--accumulate", 2, "--batch", 24],
    "strategies": ["--batch", 24],
    "large-batch": ["--batch", 12, 24, "--epochs", 1, "--threads-per-worker", 1],
    "convergence": ["--target-accuracy", 0.5, "--epochs", 2, "--threads-per-worker", 1],
    "hosts": ["--hosts", "h1:1,h2:1", "--batch", 24, "--sample-seconds", 0.2, "--threads-per-worker", 1],
}
"""sizes, so that a training takes a fraction of a second; one thread, for several wait for each other where other programs run"""
STEPS = {"batch-size", "weak-scaling", "strong-scaling", "communication", "pipeline", "strategies"}
"""studies of speed: as many steps as a timing needs, and a few probes"""


pytestmark = pytest.mark.usefixtures("ceilings")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing.chromium() as started:
        yield started


def test_the_registry_is_the_designs() -> None:
    assert list(studies.STUDIES) == list(SMALLER)
    for name in studies.STUDIES:
        study = studies.load(name)
        assert study.name == name
        assert study.question.endswith("?")
        assert f"scalelab study {name}" in study.example


@pytest.mark.parametrize("name", studies.STUDIES)
def test_a_study_answers_and_draws_its_page(
    name: str, command: Command, tmp_path: Path, browser: Browser, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / "study"
    steps: list[object] = ["--steps", 8, "--probe-steps", 3] if name in STEPS else []
    typed = on_hosts(request.getfixturevalue("cluster").h0) if studies.load(name).hosts else command
    ended = typed("study", name, *SMALL, *SMALLER[name], *steps, "--out", folder, "--json")
    assert ended.status == 0, ended.err
    record = msgspec.json.decode(ended.out, type=StudyRecord)
    assert faults(json.loads(ended.out), schema("study"), schema("study")) == []
    assert msgspec.json.decode((folder / "study.json").read_bytes(), type=StudyRecord) == record
    assert record.study == name
    assert record.status == "completed"
    assert record.answer.endswith(".")
    check_tables(record)
    assert any("one " in note and ("repeat" in note or "seed" in note) for note in record.notes), "--quick says that it ran once"
    check_page(Path(record.report or ""), record, browser)
    check_concluded(folder, record, command)


def on_hosts(login: Host) -> Command:
    """The command line on a host of the test cluster: a study of hosts runs where there are some."""

    def typed(*words: object) -> Ended:
        passed = {name: os.environ[name] for name in ("SCALELAB_CACHE", "PYTHONPATH")}
        done = login.run([sys.executable, "-m", "scalelab", *words], env=passed, timeout=150)
        return Ended(done.returncode, done.stdout, done.stderr)

    return typed


def check_tables(record: StudyRecord) -> None:
    """Every column has a value in some row; a figure is there, or absent with its reason; a row that did not run says why."""
    assert record.rows == record.tables[0].rows
    for table in record.tables:
        assert table.rows, table.id
        for column in table.columns:
            assert any(column.key in row.figures or column.key in row.factors for row in table.rows), (table.id, column.key)
        for row in table.rows:
            assert row.status in ("completed", "refused"), (row.label, row.reason)
            assert row.status == "completed" or row.reason, row.label
            for key, figure in row.figures.items():
                assert figure.median is not None or figure.reason, (row.label, key)


def check_concluded(folder: Path, record: StudyRecord, command: Command) -> None:
    """The report is made again of what lies in the folder, without a process: as the last job of a study on Slurm makes it."""
    (folder / "report.html").unlink()
    ended = command("study", "--conclude", folder, "--json", "--csv", folder.parent / "rows.csv")
    assert ended.status == 0, ended.err
    again = msgspec.json.decode(ended.out, type=StudyRecord)
    assert (again.answer, again.rows, again.status, again.runs) == (record.answer, record.rows, "completed", record.runs)
    assert (folder / "report.html").exists()
    assert (folder.parent / "rows.csv").read_text().startswith("table,label")


def check_page(report: Path, record: StudyRecord, browser: Browser) -> None:
    """The page opens without a complaint, asks nobody for anything, and draws each figure."""
    problems: list[str] = []
    requests: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    browsing.drawn(page, report)
    assert problems == []
    assert requests == [report.resolve().as_uri()]
    shown: Any = page.evaluate("() => document.body.innerText")
    assert record.question in shown
    assert page.locator(".chart").count() >= max(1, len(record.plots))
    for plot in record.plots:
        assert plot.title in shown, plot.id
        drawn = page.locator(f"#chart-{plot.id} .main-svg").first
        assert drawn.is_visible(), plot.id
    page.close()
