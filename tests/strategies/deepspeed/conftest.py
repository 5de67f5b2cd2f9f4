"""DeepSpeed's trainings, and what they are held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scalelab import strategies
from scalelab.launch.pool import Pool
from scalelab.record.schema import TrainRecord
from tests.strategies.deepspeed.same import Reference
from tests.support import missing
from tests.trainings import completed


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not strategies.installed("deepspeed"):
        missing("deepspeed: `make engines` installs it")


@pytest.fixture(scope="session")
def reference(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """One process's training, run once for each set of values."""
    seen: dict[str, tuple[Path, TrainRecord]] = {}

    def alone(**values: Any) -> tuple[Path, TrainRecord]:
        key = json.dumps(values, sort_keys=True)
        if key not in seen:
            out = tmp_path_factory.mktemp("alone")
            seen[key] = out, completed(pool, out, **values)
        return seen[key]

    return alone
