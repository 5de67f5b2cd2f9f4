"""What a worker may do for a while: nothing, or compute without a word."""

from __future__ import annotations

import subprocess
import sys
import time


def idle(seconds: str) -> int:
    """Sleep."""
    time.sleep(float(seconds))
    return 0


def let_compute(seconds: str) -> int:
    """Wait for a process that uses a core until this one ends."""
    works = "import os\nmine = os.getppid()\nwhile os.getppid() == mine: sum(range(1000))"
    return subprocess.run([sys.executable, "-c", works], timeout=float(seconds)).returncode


def compute(seconds: str) -> int:
    """Use a core, write nothing."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        sum(range(1000))
    return 0


def never_answer(question: str, answer: str) -> int:
    """What is asked by the launcher and neither computes nor answers."""
    time.sleep(60)
    return 0
