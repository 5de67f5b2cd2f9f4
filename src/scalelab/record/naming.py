"""How a training is spread, in a few words: the same in tables, labels and names of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalelab.spec import PARALLEL, defaults

OPTIONS = {name: default for name, default in defaults().items() if name in PARALLEL or name == "shares"}


def options(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a spec, as a record keeps it, says beyond strategy and engine: what is not the default."""
    return {name: spec[name] for name, default in OPTIONS.items() if spec.get(name, default) != default}


def spread(strategy: str, engine: str, said: Mapping[str, Any]) -> str:
    """``pipeline gpipe stages 2``, ``zero3 offload all on deepspeed``."""
    words = [strategy]
    for name, value in said.items():
        words += [] if name == "pipeline_schedule" else [name.replace("_", "-")]
        words += [] if value is True else [str(value)]
    return " ".join(words) + (f" on {engine}" if engine != "torch" else "")
