"""A browser for a file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import support


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = support.browser()
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=support.BROWSER_ARGUMENTS)
        yield started
        started.close()
