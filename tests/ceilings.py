"""The machine's ceilings as studies ask for them, measured once: ``from tests.ceilings import ceilings as ceilings``."""

from __future__ import annotations

import pytest
import torch

from scalelab.launch.ceiling import Occupied, measured
from scalelab.launch.pool import Pool
from scalelab.measure.environment import usable_cores
from scalelab.worker import ceiling


@pytest.fixture(scope="session")
def ceilings(pool: Pool) -> None:
    """Of one worker, of two, and of all cores. On a busy machine none is kept, and each study would measure its own."""
    for workers, threads in ((1, 1), (2, 1), (1, usable_cores())):
        found = measured(pool, Occupied(workers, threads, "cpu", "fp32"))
        asked = ceiling._asked(torch.device("cpu"), threads, workers, "fp32")
        ceiling._keep(ceiling.place_of(asked), found)
