"""``scalelab explain`` in a process of its own: facts of the real model, optimizer and one micro-batch, put into the strategy's formulas.

No worker is started: a training on a thousand workers is explained on a laptop.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from scalelab import data, models, optim, strategies
from scalelab import spec as specs
from scalelab.batch import derive
from scalelab.comm import batch_norm
from scalelab.measure.environment import usable_cores
from scalelab.spec import Spec
from scalelab.strategies.formulas.explanation import Explained
from scalelab.worker import facts, job
from scalelab.worker.asked import answering


def explain(spec_file: str, answer_file: str) -> int:
    """Write the ``Explained`` of a spec, or {"error", "kind"}, as JSON to ``answer_file``."""
    return answering(answer_file, lambda: explained(specs.load(Path(spec_file))))


def explained(spec: Spec) -> Explained:
    """The strategy's explanation of ``spec``. Raises ScalelabError in one line."""
    derived = derive(spec, strategies.degrees(spec), usable_cores())
    kind = strategies.load(spec.strategy, spec.engine)
    optim.find(spec.optimizer)
    kind.check(spec)
    dataset = data.load(spec, lambda message: print(message, file=sys.stderr, flush=True))
    torch.set_num_threads(derived.threads)
    model = job.seeded_model(spec, dataset)
    models.check_forward(model, dataset.shape, dataset.num_classes)
    kind.check_model(spec, model)
    kind.check_shape(spec, model, dataset.shape)
    if spec.batch_norm == "sync":
        batch_norm.check(model)
    model_facts, data_facts = job.facts(spec, model, dataset)
    with facts.alone() if spec.batch_norm == "sync" else nullcontext():
        known = facts.gather(spec, derived, model, dataset)
        told = kind.explain(known)
    return Explained(
        **{name: getattr(told, name) for name in told.__struct_fields__},
        strategy=spec.strategy, engine=spec.engine, workers=spec.workers, backend=known.backend, derived=derived,
        model=model_facts, data=data_facts, total_sent=told.sent_bytes,
    )  # fmt: skip
