"""What a phone shows of figures: no text is cut off, every tick is there."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from scalelab.record.study import Axis, Plot, Series
from scalelab.report import study, sweep
from tests.report import study_samples
from tests.report.test_page import Opened
from tests.sweep.test_effects import a_sweep, a_task

PHONE = {"width": 390, "height": 800}
CUT = """() => [...document.querySelectorAll('.chart')].flatMap(chart => {
  const box = chart.getBoundingClientRect();
  return [...chart.querySelectorAll('svg text')].filter(text => text.textContent.trim()).filter(text => {
    const own = text.getBoundingClientRect();
    return getComputedStyle(text).display === 'none' || own.left < box.left - 1 || own.right > box.right + 1
      || own.top < box.top - 1 || own.bottom > box.bottom + 1;
  }).map(text => chart.id + ': ' + text.textContent);
})"""
TICKS = "() => [...document.querySelectorAll('#chart-batches .xtick text')].map(text => text.textContent)"
BATCHES = [32, 64, 128, 256, 512, 1024, 2048, 4096]


def plots() -> list[Plot]:
    """Figures that are hard to fit: many ticks, long names beside bars, and above points at the right edge."""
    names: list[str | int | float] = [
        f"{name} × 2, {count} micro-batches" for name in ("interleaved", "zero-bubble") for count in (2, 8)
    ]
    share = Axis(title="idle share of a step", show="percent")
    batches = Axis(title="batch", log=True, show="count", ticks=[float(batch) for batch in BATCHES])
    rate = Axis(title="images/s", show="rate")
    measured = Series(name="measured", x=[float(batch) for batch in BATCHES], y=[3000.0 + batch for batch in BATCHES])
    parts = [Series(name=part, x=names, y=[0.3, 0.2, 0.1, 0.4], style="stacked") for part in ("order of the passes", "the rest")]
    points = Series(
        name="torch", x=[1.6e8, 2.3e8], y=[2600.0, 3800.0], style="points", text=["pipeline × 2", "single, all 2 cores"]
    )
    return [
        Plot(id="batches", title="Throughput", caption="c", x=batches, y=rate, series=[measured]),
        Plot(id="parts", title="Parts", caption="c", x=Axis(title="pipeline", show="text"), y=share, series=parts, wide=True),
        Plot(id="front", title="Front", caption="c", x=Axis(title="memory", show="size"), y=rate, series=[points], wide=True),
    ]


def test_of_a_studys_figures_nothing_is_cut_off(browser: Browser, tmp_path: Path) -> None:
    record, file = study_samples.study(), tmp_path / "report.html"
    record.plots = plots()
    file.write_text(study.render(record, [], "studies/x"), encoding="utf-8")
    page = Opened(browser, file, viewport=PHONE).page
    assert page.evaluate(CUT) == []
    assert page.evaluate(TICKS) == [f"{batch:,}" for batch in BATCHES]


def test_of_a_sweeps_figures_nothing_is_cut_off(browser: Browser, tmp_path: Path) -> None:
    swept, file = a_sweep(["width", "rate"], 20), tmp_path / "report.html"
    tasks = {n: a_task(n, 1.234e-6 * (n + 1), width=str(2 ** (3 + n % 4)), rate=f"{0.01 * 1.2**n:.4f}") for n in range(20)}
    file.write_text(sweep.render(swept, tasks, [], "sweeps/x"), encoding="utf-8")
    page = Opened(browser, file, viewport=PHONE).page
    assert page.evaluate(CUT) == []
    assert page.evaluate("() => [...document.querySelectorAll('#chart-parallel .xtick text')].map(text => text.textContent)") == [
        "rate", "width", "score",
    ]  # fmt: skip
