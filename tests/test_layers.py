"""What starts without torch, and how the command line looks from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scalelab.record.sweep import PlannedTask, SweepRecord
from scalelab.sweep import keeping

HEAVY = ("torch", "torchvision", "timm", "torchmetrics", "pyarrow", "pandas", "sklearn", "tensorboard")
LIGHT = (
    "scalelab",
    "scalelab.cli",
    "scalelab.cli.train",
    "scalelab.cli.verify",
    "scalelab.cli.demo",
    "scalelab.cli.runs",
    "scalelab.cli.report",
    "scalelab.launch.local",
    "scalelab.launch.server",
    "scalelab.studies.verifying.verify",
    "scalelab.studies.demo",
    "scalelab.cli.sweep",
    "scalelab.sweep.slurm",
    "scalelab.report",
    "scalelab.record.export",
    "scalelab.spec",
    "scalelab.strategies",
)


@pytest.mark.parametrize("module", LIGHT)
def test_starts_without_heavy_libraries(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_leaves_numpy_out() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, scalelab; print('numpy' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("words", ["train --help", "doctor --help", "jobs --help", "check-table --help", "sweep status sweep"])
def test_what_computes_nothing_starts_without_numpy_and_yaml(words: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    keeping.make(folder)
    metrics = {"loss": 0.5}
    sweep = SweepRecord(name="n", command=[], argv=[], cwd="", parameters=[], tasks=1, goal="loss", created="")
    keeping.create(folder, sweep, [PlannedTask(task=0, argv=["true"])])
    keeping.keep(folder, {"task": 0, "status": "completed", "values": {}, "metrics": metrics})
    look = "print([name for name in ('numpy', 'yaml') if name in sys.modules])"
    code = (
        f"import atexit, sys; from scalelab.cli import main; atexit.register(lambda: {look}); sys.exit(main({words.split()!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, "[]", "")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "scalelab", *words], capture_output=True, text=True)
    assert done.returncode == 0
    assert not done.stderr
    for name in ("demo", "train", "verify", "report", "runs"):
        assert f"\n  {name} " in done.stdout


def test_no_command_shows_the_help_and_is_an_error() -> None:
    done = subprocess.run([sys.executable, "-m", "scalelab"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: scalelab COMMAND" in done.stdout


def test_version() -> None:
    import scalelab

    done = subprocess.run([sys.executable, "-m", "scalelab", "--version"], capture_output=True, text=True)
    assert done.stdout == f"scalelab {scalelab.__version__}\n"
