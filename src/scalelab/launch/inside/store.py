"""A text from the first rank to the others over the store of torchrun's agent, in a process that has torch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scalelab.errors import ScalelabError
from scalelab.launch.failure import describe

if TYPE_CHECKING:
    from scalelab.launch.inside.world import World
    from scalelab.launch.pool import Pool


def exchange(world: World, environ: Mapping[str, str], said: str | None, pool: Pool) -> str:
    """``said`` of the first rank, on every rank. Raises ScalelabError."""
    with tempfile.TemporaryDirectory(prefix="scalelab-") as scratch:
        answer = Path(scratch, "answer")
        process = pool.start("scalelab.worker.store:exchange", [f"scalelab/{world.token}", said or "", str(answer)])
        status = pool.wait(process)
        if status or not answer.exists():
            raise ScalelabError(f"torchrun's store could not be asked ({describe(status)}); its output is above")
        return answer.read_text()
