"""The studies by name, each imported when it is asked for."""

from __future__ import annotations

import importlib

from scalelab.errors import unknown
from scalelab.studies.study import Study

STUDIES: dict[str, str] = {
    "batch-size": "scalelab.studies.batch_size.batch_size:STUDY",
    "weak-scaling": "scalelab.studies.scaling.weak_scaling:STUDY",
    "strong-scaling": "scalelab.studies.scaling.strong_scaling:STUDY",
    "communication": "scalelab.studies.communication.communication:STUDY",
    "pipeline": "scalelab.studies.pipeline.pipeline:STUDY",
    "strategies": "scalelab.studies.strategies.strategies:STUDY",
    "large-batch": "scalelab.studies.learning.large_batch:STUDY",
    "convergence": "scalelab.studies.learning.convergence:STUDY",
    "hosts": "scalelab.studies.hosts.hosts:STUDY",
}


def load(name: str) -> Study:
    """The study ``name``. Raises ScalelabError for an unknown one, with the nearest."""
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    module, _, symbol = STUDIES[name].partition(":")
    study: Study = getattr(importlib.import_module(module), symbol)
    return study
