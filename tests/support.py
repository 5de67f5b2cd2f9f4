"""What tests need from the machine. A missing program skips a test here, and fails it where CI=true promises that it is there."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
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
STARTERS = ("places.placing", "study.on_slurm", "demo", "explain", "check_table")
"""modules of the command line that start a server of their own, where a test gives them its warm one"""


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


def free_port() -> int:
    """A port that nobody listens at, and that no outgoing connection is given meanwhile: it lies below those that systems hand out."""
    for port in random.sample(range(20000, 30000), 1000):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no port from 20000 to 29999 is free")


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "512k") -> Iterator[Path]:
    """A file system of ``size`` at ``folder``; the test ends where none can be made."""
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        missing("root and mount, to make a small disk")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"missing: the right to mount a small disk ({made.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
