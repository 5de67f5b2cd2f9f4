"""An update that breaks the weights in an epoch's last step: no loss has shown it yet, and no checkpoint may hold it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from scalelab.launch.pool import Pool
from tests.trainings import train

BREAKS = """
    import torch
    from scalelab.strategies.ddp import DDP

    class Breaks(DDP):
        count = 0

        def step(self, micro_batches):
            loss = super().step(micro_batches)
            self.count += 1
            if self.count == 8 and self.world.rank == 1:
                with torch.no_grad():
                    next(self.module.parameters()).fill_(float("inf"))
            return loss
"""


def test_it_ends_the_run_and_keeps_the_checkpoint_before(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(textwrap.dedent(BREAKS))
    record = train(pool, tmp_path / "runs", strategy=f"{tmp_path}/breaks.py:Breaks", workers=2, epochs=3)
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.expected
    assert "the weights are no longer finite after step 8" in record.failure.error
    pointer = json.loads((tmp_path / "runs" / record.run / "checkpoints" / "last.json").read_text())
    assert pointer["step"] == 4
