"""Which figures a report has, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scalelab.record.schema import Step
from scalelab.report.bars import breakdown, memory, throughput
from scalelab.report.chart import Chart, Runs
from scalelab.report.curves import accuracy, loss


def charts(runs: Runs, steps: Mapping[str, Sequence[Step]], points: int) -> list[Chart]:
    """Every figure that the data can fill, in the page's order."""
    made = [throughput(runs), breakdown(runs), loss(runs, steps, points), accuracy(runs), memory(runs)]
    return [chart for chart in made if chart is not None]
