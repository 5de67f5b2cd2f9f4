"""What the trainings of batch-size show: times of an epoch, memory, the bend, and what explains it. Figures and sentences, no processes."""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.measure.line import Line
from scalelab.record.schema import Figure
from scalelab.record.study import Axis, Column, Findings, Plot, Row, Series, Table
from scalelab.studies.batch_size import batch_sentences
from scalelab.studies.batch_size.batch_figures import (
    activations,
    activations_over_cache,
    compared,
    epoch_compute,
    epoch_data,
    epoch_seconds,
    fit,
    pooled_epochs,
    rate,
    share,
)
from scalelab.studies.communication.wire import steps_of_epoch
from scalelab.studies.figures import READ, pooled, row, scaled
from scalelab.studies.shown import CEILING, STEP, line
from scalelab.studies.study import Asked, Result

COLUMNS = [
    Column(key="batch", title="Batch", show="count"),
    Column(key="epoch_seconds", title="Epoch", sub="from the second on", show="seconds"),
    Column(key="epoch_compute", title="Compute", sub="/ epoch", show="seconds"),
    Column(key="epoch_data", title="Data wait", sub="/ epoch", show="seconds"),
    Column(key="images_per_second", title="Throughput", sub="images/s, from the second epoch on", show="rate"),
    Column(key="of_smallest", title="Throughput", sub="over the smallest batch", show="times"),
    STEP,
    CEILING,
    Column(key="peak_memory", title="Memory", sub="peak of the process", show="size"),
    Column(key="activations", title="Activations", sub="at most in a step", show="size"),
    Column(key="of_cache", title="Activations", sub="/ largest cache", show="times"),
]
COSTS = [
    Column(key="what", title="A step", show="text"),
    Column(key="overhead", title="Overhead", sub="of a step, a", show="seconds"),
    Column(key="image", title="Image", sub="of a batch, b", show="seconds"),
    Column(key="half", title="Half", sub="a / b, images", show="number"),
    Column(key="off", title="Off", sub="the fit, at most", show="percent"),
]
CAPTION = (
    "Times of whole epochs from the second on, n counting epochs, and so the throughput: the one told of a training while the study runs, "
    "the median over blocks of its steps, is another figure. Computing and waiting for data apart. The smallest batch is the base "
    "of the ratio. Memory: of the process, libraries and data included; activations: tensors kept for the backward pass, at their most."
)
COST_CAPTION = (
    "Seconds of a step, waiting for data left out, as a + b x batch, by least squares of relative errors. a / b (Hockney): the batch of "
    "which overhead is half the step; the throughput of the line is within 5 % of its limit 1/b from 19 a / b on."
)


def findings(asked: Asked, results: Sequence[Result]) -> Findings:
    """Of all batches, those that failed or were refused too."""
    rows = [_row(result, results) for result in results]
    done = [result for result in results if result.completed]
    fitted = fit(done)
    tables = [
        Table(id="rows", title="Batches", columns=COLUMNS, rows=rows, caption=CAPTION),
        Table(id="costs", title="What a step costs", columns=COSTS, rows=[_costs(fitted)], caption=COST_CAPTION),
    ]
    return Findings(
        answer=batch_sentences.answer(done), sentences=batch_sentences.sentences(done, rows, fitted), tables=tables,
        plots=[_rate_plot(rows, fitted), _epoch_plot(rows), _memory_plot(rows)], notes=batch_sentences.notes(done),
        cards=batch_sentences.cards(done),
    )  # fmt: skip


def _row(result: Result, results: Sequence[Result]) -> Row:
    base = next((one for one in results if one.completed), result)
    figures = {
        "epoch_seconds": pooled_epochs(result, epoch_seconds),
        "epoch_compute": pooled_epochs(result, epoch_compute),
        "epoch_data": pooled_epochs(result, epoch_data),
        "images_per_second": pooled_epochs(result, rate),
        "step_seconds": pooled_epochs(result, lambda run: scaled(epoch_seconds(run), 1 / max(1, steps_of_epoch(run.record)))),
        "of_smallest": Figure(unit="ratio", median=1.0, n=len(base.completed), reason="this row is the base")
        if result is base and base.completed else compared(result, base),
        "achieved": share(result),
        "peak_memory": pooled(result, READ["peak_memory"]),
        "activations": pooled(result, activations),
        "of_cache": pooled(result, activations_over_cache),
    }  # fmt: skip
    return row(result, figures)


def _costs(fitted: Line) -> Row:
    figures = {"overhead": fitted.a, "image": fitted.b, "half": fitted.half, "off": fitted.off}
    return Row(label="step", factors={"what": "a + b x batch"}, figures=figures)


def _batches(rows: Sequence[Row]) -> Axis:
    return Axis(title="batch", log=True, ticks=[float(one.factors["batch"]) for one in rows], show="count")


def _rate_plot(rows: Sequence[Row], fitted: Line) -> Plot:
    drawn = [line("measured", rows, "images_per_second", "batch")]
    batches = [int(one.factors["batch"]) for one in rows]
    times = [fitted.at(batch) for batch in batches]
    if all(one is not None and one > 0 for one in times):
        y = [batch / seconds if seconds else None for batch, seconds in zip(batches, times, strict=True)]
        drawn.append(Series(name="batch / (a + b x batch)", x=list(batches), y=y, style="ideal"))
    return Plot(
        id="throughput", title="Throughput", x=_batches(rows), y=Axis(title="images/s", show="rate"), series=drawn,
        caption="The curve bends where the cost of a step no longer counts; where it leaves the dashed line, an image costs more, or less, "
        "than elsewhere.",
    )  # fmt: skip


def _epoch_plot(rows: Sequence[Row]) -> Plot:
    parts = {"epoch_compute": "compute", "epoch_data": "waiting for data"}
    names = [f"{one.factors['batch']}" for one in rows]
    drawn = [
        Series(name=title, x=list(names), y=[one.figures[key].median for one in rows], style="stacked")
        for key, title in parts.items()
    ]
    return Plot(
        id="epoch", title="Where an epoch goes", x=Axis(title="batch", show="text"), y=Axis(title="seconds of an epoch", show="seconds"),
        series=drawn,
        caption="Loading, moving and augmenting a batch is apart from computing with it.",
    )  # fmt: skip


def _memory_plot(rows: Sequence[Row]) -> Plot:
    titles = {"peak_memory": "process, peak", "activations": "activations"}
    return Plot(
        id="memory", title="Memory", x=_batches(rows), y=Axis(title="bytes", log=True, show="size"),
        series=[line(title, rows, key, "batch") for key, title in titles.items()],
        caption="Activations grow with the batch; what does not is the model, the libraries and the data.",
    )  # fmt: skip
