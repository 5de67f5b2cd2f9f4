"""``sweep(...)``: the command in this process; it starts no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scalelab import cli
from tests.conftest import Ended

Sweep = Callable[..., Ended]


@pytest.fixture
def sweep(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """``sweep("status", "s")``: how ``scalelab sweep status s`` ended, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Ended:
        capfd.readouterr()
        status = cli.main(["sweep", *(str(word) for word in words)])
        return Ended(status, *capfd.readouterr())

    return run
