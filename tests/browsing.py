"""Reports in a real browser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests import support
from tests.waiting import PATIENCE


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium of its own. On a busy machine it takes longer to start than the library's 30 s."""
    path = support.browser()
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=support.BROWSER_ARGUMENTS, timeout=1000 * PATIENCE)
        yield started
        started.close()


def drawn(page: Page, file: Path) -> None:
    """Open a report, and wait until its figures are there."""
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(file.resolve().as_uri())
    page.wait_for_function("() => [...document.querySelectorAll('.chart')].every(box => box.querySelector('.main-svg'))")
