"""Numbers as a reader sees them."""

import pytest

from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.report.labels import names
from tests.report import samples


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1280.4, "1,280"),
        (98765, "98,800"),
        (0.01234, "0.0123"),
        (2.13e-13, "2.1e-13"),
        (0, "0"),
        (-3.456, "-3.46"),
        (999.9, "1,000"),
        (9.999, "10.0"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(3.4e-4, "340 µs"), (0.0121, "12.1 ms"), (3.2, "3.20 s"), (250, "4 min 10 s"), (7260, "2 h 1 min"), (-2e-5, "-20.0 µs")],
)
def test_durations_choose_their_unit(value: float, shown: str) -> None:
    assert text.seconds(value) == shown


def test_bytes_are_binary() -> None:
    assert text.size(312 * 2**20) == "312 MiB"


def test_an_interval_writes_its_unit_once() -> None:
    figure = Figure(unit="ratio", median=1.62, n=9, ci95=(1.55, 1.7))
    assert text.interval(figure, text.times) == "1.55–1.70×"


def test_an_interval_across_units_keeps_both() -> None:
    figure = Figure(unit="s", median=1e-3, n=9, ci95=(9e-4, 1.1e-3))
    assert text.interval(figure, text.seconds) == "900 µs–1.10 ms"


def test_a_minus_is_not_run_together_with_the_dash() -> None:
    figure = Figure(unit="s", median=0.02, n=9, ci95=(-0.0505, 0.0855))
    assert text.interval(figure, text.seconds) == "-50.5 to 85.5 ms"


def test_an_absent_figure_is_a_dash_never_zero() -> None:
    assert text.shown(Figure(unit="s", reason="why"), text.seconds) == "–"


def test_plotly_markup_is_escaped() -> None:
    assert text.plain('<b>x</b>\n<a href="y">&amp;') == '&lt;b&gt;x&lt;/b&gt; &lt;a href="y"&gt;&amp;amp;'


def test_a_name_cannot_reverse_or_drive_what_stands_beside_it() -> None:
    record, _ = samples.record("ddp", spec={"name": "safe\u202edesrever \x1b[31mred"})
    assert names([record]) == ["safedesrever [31mred"]
