"""When the data held a training up: what the steps' own times say, and what can be done."""

from __future__ import annotations

from scalelab.batch import Derived
from scalelab.record.schema import Figure

SLOWED, BOTTLENECK = 0.2, 0.5
"""shares of a step spent waiting for data from which it is said that the data slowed the training, or was what it waited for most"""


def note(share: Figure, streamed: bool, derived: Derived) -> str | None:
    """What a reader should know of ``share``, the data's of a step; None where its whole interval is not above SLOWED, or it has none."""
    if share.median is None or share.ci95 is None or share.ci95[0] <= SLOWED:
        return None
    low, high = (f"{100 * end:.0f}" for end in share.ci95)
    said = "was the bottleneck" if share.ci95[0] > BOTTLENECK else "slowed the training"
    return (
        f"the data {said}: {100 * share.median:.0f} % of a step ({low}\u2013{high} %, n = {share.n} blocks) was waiting for it; "
        f"{_advice(streamed, derived)}"
    )


def _advice(streamed: bool, derived: Derived) -> str:
    if not streamed:
        return "it is in memory, so this is augmentation, --resize and normalisation beside a small model"
    threads = f"{derived.data_threads} thread{'s' * (derived.data_threads > 1)} of each worker"
    if derived.oversubscribed:
        return f"{threads} decoded it, on cores that were taken: store the images smaller, or --stream never where memory allows"
    return f"{threads} decoded it: try more --data-workers, store the images smaller, or --stream never where memory allows"
