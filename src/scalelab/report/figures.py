"""Which figures a report has, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scalelab.record.schema import Step
from scalelab.report.bars import breakdown, memory, throughput
from scalelab.report.chart import Chart, Runs
from scalelab.report.curves import accuracy, loss
from scalelab.report.resources import resources
from scalelab.report.subject import Samples


def charts(runs: Runs, steps: Mapping[str, Sequence[Step]], samples: Samples, points: int) -> list[Chart]:
    """Every figure that the data can fill, in the page's order."""
    curves = [loss(runs, steps, points), accuracy(runs)]
    made = [throughput(runs), breakdown(runs), *curves, memory(runs), resources(runs, steps, samples, points)]
    return [chart for chart in made if chart is not None]
