"""DeepSpeed's tests are those of a machine that has it."""

from __future__ import annotations

import pytest

from scalelab import strategies
from tests.support import missing


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not strategies.installed("deepspeed"):
        missing("deepspeed: `make engines` installs it")
