"""What is asked before a training starts: an answer, or one line."""

from __future__ import annotations

import time

import pytest

from scalelab.launch.asking import Silent, ask
from scalelab.launch.pool import Pool
from scalelab.spec import Spec


def test_what_never_answers_is_ended_after_the_timeout(pool: Pool) -> None:
    pool.wait(pool.start("os:getpid", []))  # its server is up: what that imports takes longer than this on a busy machine
    began = time.monotonic()
    with pytest.raises(Silent, match=r"^weighing a step: nothing was computed for 1 seconds \(--timeout\)"):
        ask(pool, "tests.launch.idling:never_answer", Spec(timeout=1.0), "weighing a step")
    assert time.monotonic() - began < 20
