"""What the studies' plans share: threads fixed for all rows, specs with some values changed, how a training is called."""

from __future__ import annotations

from typing import Any

import msgspec

from scalelab import spec as specs
from scalelab.record.naming import options
from scalelab.record.naming import spread as words
from scalelab.spec import Spec
from scalelab.studies.study import Asked


def with_values(base: Spec, **values: Any) -> Spec:
    """``base`` with other values; what is given one way (``batch_per_worker``) takes the place of the other (``batch``).

    Raises ScalelabError for a value that no spec takes.
    """
    return specs.from_mapping(specs.over(msgspec.to_builtins(base), values), flags=True)


def serial(base: Spec, **values: Any) -> Spec:
    """``base`` as one process trains it, without what only parallel strategies have."""
    return with_values(
        base, **{**specs.PARALLEL, "strategy": "single", "engine": "torch", "workers": 1, "shares": None, **values}
    )


def threads(asked: Asked, most_workers: int) -> int:
    """Threads of each worker, the same for all rows, the serial base too: cores / the most workers of a host."""
    return asked.base.threads_per_worker or max(1, asked.cores // asked.busiest(most_workers))


def spread(spec: Spec) -> str:
    """``ddp``, ``zero3 on deepspeed``, ``pipeline gpipe stages 2``."""
    return words(spec.strategy, spec.engine, options(msgspec.to_builtins(spec)))
