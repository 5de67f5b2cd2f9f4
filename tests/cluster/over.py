"""Trainings over the hosts of the test cluster, as a person on h0 starts them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from tests.cluster.host import Host

TINY = (
    "--data", "synthetic", "--image-size", "8", "--model-arg", "width=4", "--train-limit", "64", "--test-limit", "32",
    "--batch", "16", "--steps", "4", "--probe-steps", "0", "--warmup-steps", "0", "--strategy", "ddp",
)  # fmt: skip
"""four steps of a small model; what is said after it says it otherwise"""


def train(host: Host, folder: object, *words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """``scalelab train`` in a folder of a host, to its end."""
    line = ["scalelab", "train", *TINY, *words]
    return host.run(line, cwd=folder, env={"COLUMNS": "160", **(env or {})})


def completed(host: Host, folder: Path, *words: object, env: Mapping[str, str] | None = None) -> TrainRecord:
    """``train``, which must not fail; the record of the one run under ``folder``."""
    done = train(host, folder, *words, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return records.load(records.find([], folder / "runs")[-1])
