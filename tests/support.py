"""What tests need from the machine. A missing program skips a test here, and fails it where CI=true promises that it is there."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]


def missing(what: str) -> NoReturn:
    """Skip the test and say what is missing; fail it when CI=true."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"missing on a machine that should have it: {what}")
    pytest.skip(f"missing: {what}")


def browser() -> str:
    """The path of a Chromium, or the test ends."""
    for name in BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    missing(f"a browser ({', '.join(BROWSERS)}); tools/install-system-packages brings Chromium")
