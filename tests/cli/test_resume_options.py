"""What a resumed run keeps of its spec, and what it leaves behind with the strategy or the workers that it was for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab.cli.train import spec_of
from scalelab.launch.pool import Pool
from tests.trainings import completed

SAID: dict[str, Any] = {"sync_every": 2, "outer_momentum": 0.5, "shares": "2:1"}


@pytest.fixture(scope="module")
def run(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of local-sgd with options of its own."""
    out = tmp_path_factory.mktemp("runs")
    record = completed(pool, out, strategy="local-sgd", workers=2, epochs=2, stop_after_epoch=1, lr=0.02, **SAID)
    return out / record.run


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, SAID),
        ({"workers": "2", "strategy": "local-sgd"}, SAID),  # said again is not changed; flags are text
        ({"sync_every": "3"}, {**SAID, "sync_every": 3}),
        ({"workers": "3"}, {**SAID, "shares": None}),
        ({"strategy": "ddp"}, {"sync_every": 10, "outer_momentum": 0.0, "shares": None}),
        ({"strategy": "ddp", "shares": "1:2"}, {"sync_every": 10, "outer_momentum": 0.0, "shares": "1:2"}),
    ],
)
def test_options_go_with_what_they_were_given_for(run: Path, given: dict[str, Any], kept: dict[str, Any]) -> None:
    spec = spec_of({"resume": str(run), **given})
    assert {name: getattr(spec, name) for name in SAID} == kept
    assert (spec.lr, spec.batch) == (0.02, 24)
