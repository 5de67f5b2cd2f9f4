"""How much several processes did at the same time: rates in common stretches of one clock."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rates(times: Sequence[Sequence[float]], amount: Sequence[float], stretch: float) -> list[float]:
    """What all processes together did per second, in each ``stretch`` seconds in which all of them were at work.

    ``times[p]``: when process p began, and when each of its pieces, of ``amount[p]``, was done, in seconds of one clock. A piece counts
    by the part of its time that lies in a stretch. Where they had less than one stretch in common, the whole of it is one; none: empty.
    """
    start, end = max(seen[0] for seen in times), min(seen[-1] for seen in times)
    if end <= start:
        return []
    edges = np.linspace(start, end, max(1, int((end - start) / stretch)) + 1)
    done = sum(np.interp(edges, seen, np.arange(len(seen)) * each) for seen, each in zip(times, amount, strict=True))
    return [float(rate) for rate in np.diff(done) / np.diff(edges)]
