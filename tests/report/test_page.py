"""The page in a real browser, and what of it needs none."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Page

from scalelab.errors import ScalelabError
from scalelab.record.schema import DataFacts
from scalelab.report import frame, page
from scalelab.report.subject import Subject
from tests import browsing
from tests.report import samples

HOSTILE = '<script>window.hacked=1</script>"\'&<b>bold</b><a href="https://example.com">x</a>%{x}'


class Opened:
    """A page with everything it logged and asked for."""

    def __init__(self, browser: Browser, file: Path, **options: Any) -> None:
        self.page: Page = browser.new_context(**options).new_page()
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console", lambda message: self.problems.append(message.text) if message.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        browsing.drawn(self.page, file)


def html(records, steps, **changes) -> str:
    given = {"title": "Five ways", "question": "Which is the fastest?", **changes}
    return page.render(Subject(records, steps=steps, **given))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records, steps = samples.demo()
    died, its_steps = samples.failed()
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(html([*records, died], {**steps, died.run: its_steps}, verify=samples.verify()), encoding="utf-8")
    return file


def hostile() -> tuple[list[Any], dict[str, Any]]:
    made = [samples.record(key, seed=place, spec={"name": f"{HOSTILE}{place}"}) for place, key in enumerate(("single", "ddp"))]
    data = DataFacts(name=HOSTILE, train=1, test=360, classes=[HOSTILE] * 10, shape=[1, 8, 8])
    records = [msgspec.structs.replace(one, data=data, notes=[HOSTILE], name=HOSTILE) for one, _ in made]
    return records, {one.run: steps for one, steps in made}


def test_the_page_is_quiet_and_asks_for_nothing(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo)
    assert opened.problems == []
    assert opened.requests == [demo.as_uri()]


def test_every_figure_has_data_and_axis_titles(browser: Browser, demo: Path) -> None:
    found = Opened(browser, demo).page.evaluate(
        """[...document.querySelectorAll('.chart')].map(gd => ({id: gd.id, traces: gd.data.length, x: gd.layout.xaxis.title.text,
            drawn: gd.querySelectorAll('.point, .lines path').length,
            points: gd.data.reduce((sum, trace) => sum + trace.x.filter(value => value !== null).length, 0)}))"""
    )
    assert [one["id"] for one in found] == ["chart-throughput", "chart-breakdown", "chart-loss", "chart-accuracy", "chart-memory"]
    for one in found:
        assert one["traces"] >= 3, one
        assert one["points"] >= 7, one
        assert one["drawn"] >= 3, one
        assert one["x"], one


def test_throughput_has_its_intervals(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo)
    bars = opened.page.evaluate(
        "document.getElementById('chart-throughput').data.map(t => [t.x[0], t.error_x.arrayminus[0], t.error_x.visible])"
    )
    records, _ = samples.demo()
    for (value, below, visible), record in zip(bars, records, strict=False):
        figure = record.images_per_second
        assert value == pytest.approx(figure.median, rel=1e-4)
        assert value - below == pytest.approx(figure.ci95[0], rel=1e-3)
        assert visible
    assert bars[6][2] is False, "the failed run is too short for an interval"


def test_an_absent_part_of_a_step_is_a_gap_not_a_zero(browser: Browser, demo: Path) -> None:
    parts = Opened(browser, demo).page.evaluate("document.getElementById('chart-breakdown').data.map(t => t.x)")
    exposed = parts[1]
    assert exposed[0] is None
    assert exposed[6] is None
    assert exposed[2] == pytest.approx(1.5, rel=0.1)


def test_a_run_has_one_colour_everywhere(browser: Browser, demo: Path) -> None:
    colours = Opened(browser, demo).page.evaluate(
        """() => { const named = t => t.name === 'ddp × 2' && t.showlegend !== false;
        const of = (id, read) => document.getElementById(id).data.filter(named).map(read)[0];
        const row = [...document.querySelectorAll('.compare tbody th')].find(th => th.textContent.includes('ddp'));
        return [of('chart-throughput', t => t.marker.color), of('chart-loss', t => t.line.color),
                of('chart-accuracy', t => t.line.color), getComputedStyle(row.querySelector('.swatch')).backgroundColor] }"""
    )
    assert len(set(colours)) == 1, colours
    assert colours[0].startswith("rgb(")


def test_the_switch_shows_loss_by_seconds(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo)
    read = "(gd => [gd.layout.xaxis.title.text, Math.max(...gd.data[0].x)])(document.getElementById('chart-loss'))"
    before = opened.page.evaluate(read)
    opened.page.click("[data-chart=loss][data-view='1']")
    after = opened.page.evaluate(read)
    assert before[0] == "optimizer step"
    assert "seconds" in after[0]
    assert after[1] < before[1]
    assert opened.page.get_attribute("[data-chart=loss][data-view='1']", "aria-pressed") == "true"


def test_the_theme_button_changes_page_and_figures(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo)
    read = "[getComputedStyle(document.body).backgroundColor, document.getElementById('chart-throughput').data[0].marker.color]"
    light = opened.page.evaluate(read)
    opened.page.click("#theme")
    dark = opened.page.evaluate(read)
    assert all(one != other for one, other in zip(light, dark, strict=True))
    opened.page.click("#theme")
    assert opened.page.evaluate(read) == light
    assert opened.problems == []


def test_the_systems_dark_setting_is_followed(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo, color_scheme="dark")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 24)"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(browser: Browser, demo: Path, width: int) -> None:
    opened = Opened(browser, demo, viewport={"width": width, "height": 740})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.evaluate(
        "[...document.querySelectorAll('.chart .main-svg')].every(s => s.getBoundingClientRect().right <= innerWidth)"
    )


def test_hostile_text_does_not_widen_a_phones_page(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    records, steps = hostile()
    long = "x" * 400
    file.write_text(html(records, steps, title=long, question=long, answer=long), encoding="utf-8")
    opened = Opened(browser, file, viewport={"width": 360, "height": 740})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    records, steps = hostile()
    file.write_text(html(records, steps, title=HOSTILE, question=HOSTILE), encoding="utf-8")
    opened = Opened(browser, file)
    assert opened.problems == []
    assert opened.requests == [file.as_uri()]
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.inner_text("h1") == HOSTILE
    assert opened.page.locator("script").count() == 3
    assert opened.page.locator("main b:text-is('bold'), .chart a, .chart [style*='bold']").count() == 0
    ticks = opened.page.locator("#chart-throughput .ytick text").all_text_contents()
    assert all("<script>" in tick for tick in ticks), ticks
    legend = opened.page.locator("#chart-loss .legendtext").all_text_contents()
    assert len(legend) == 2
    assert all("<script>" in name for name in legend), legend
    opened.page.hover("#chart-accuracy .nsewdrag")
    opened.page.wait_for_function("() => document.querySelector('#chart-accuracy .hoverlayer text')")
    shown = " ".join(opened.page.locator("#chart-accuracy .hoverlayer .legendtext").all_text_contents())
    assert "<script>" in shown
    assert "%{x}0" in shown, "a name is not a template"
    assert HOSTILE in opened.page.inner_text("#confusion")


def test_printing_is_light_open_and_fits(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo, color_scheme="dark")
    opened.page.emulate_media(media="print")
    opened.page.wait_for_function("() => [...document.querySelectorAll('details')].every(one => one.open)")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    opened.page.wait_for_function(
        "() => [...document.querySelectorAll('.chart .main-svg')].every(s => s.getBoundingClientRect().width <= 670)"
    )
    assert opened.page.evaluate("document.getElementById('chart-throughput').layout.font.color") == "rgb(23, 26, 33)"
    opened.page.emulate_media(media="screen")
    opened.page.wait_for_function("() => [...document.querySelectorAll('details')].every(one => !one.open)")
    assert opened.page.pdf(format="A4")[:4] == b"%PDF"


def test_the_table_sorts_and_keeps_absent_figures_last(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo)
    opened.page.click(".compare thead button >> text=Exposed communication")
    values = opened.page.evaluate("[...document.querySelectorAll('.compare tbody tr')].map(row => row.children[4].dataset.sort)")
    known = [float(value) for value in values if value]
    assert known == sorted(known, reverse=True)
    assert values[-3:] == ["", "", ""]


def test_the_confusion_matrix_follows_the_chosen_run(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo)
    records, _ = samples.demo()
    for place in (0, 3):
        opened.page.select_option("#confusion-run", str(place))
        shown = opened.page.evaluate(
            "[...document.querySelectorAll('#confusion tbody tr')].map(r => [...r.cells].slice(1).map(c => +c.textContent))"
        )
        assert shown == records[place].epochs[-1].confusion


def test_tables_and_figures_are_labelled(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo)
    assert opened.page.locator("th:not([scope])").count() == 0
    assert opened.page.locator("h1").count() == 1
    assert opened.page.locator(".chart:not([aria-label])").count() == 0
    assert opened.page.evaluate(
        "[...document.querySelectorAll('[aria-labelledby]')].every(one => one.ariaLabelledByElements.length === 1)"
    )
    assert opened.page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].every(one => document.getElementById(one.hash.slice(1)))"
    )


def test_a_failed_run_shows_its_traceback(demo: Path) -> None:
    content = demo.read_text(encoding="utf-8")
    assert "RuntimeError: &lt;script&gt;alert(1)&lt;/script&gt; &amp; out of memory" in content
    assert "rank 1 on lab after 22 steps" in content


def test_absent_figures_are_dashes_with_a_reason(demo: Path) -> None:
    content = demo.read_text(encoding="utf-8")
    assert re.search(r'title="one worker has nobody to talk to"><b>–</b>', content)


def test_the_page_is_small_and_names_no_other_file(demo: Path) -> None:
    content = demo.read_text(encoding="utf-8")
    assert len(content.encode()) <= 2_000_000
    assert not re.search(r'(?:src|href)="(?!#|data:,)', content.split("<script>")[0])


def test_many_runs_still_fit(tmp_path: Path) -> None:
    one, _ = samples.record("ddp")
    long = samples.steps_of(7.5, 1.5, count=3000, per_epoch=600)
    records = [msgspec.structs.replace(one, run=f"{one.run}{place}") for place in range(60)]
    content = html(records, {record.run: long for record in records})
    assert len(content.encode()) <= page.LIMIT


def test_too_many_runs_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "LIMIT", 1_000_000)
    record, steps = samples.record("ddp")
    with pytest.raises(ScalelabError, match="do not fit into a page"):
        html([record], {record.run: steps})


def test_no_record_is_refused() -> None:
    with pytest.raises(ScalelabError, match="no run"):
        html([], {})


def test_embedded_data_cannot_end_its_script() -> None:
    shown = str(frame.embed({"a": "</script><!--\u2028&", "b": float("nan"), "c": [float("inf"), 1.5]}))
    assert not set("<>&\u2028") & set(shown)
    assert json.loads(shown) == {"a": "</script><!--\u2028&", "b": None, "c": [None, 1.5]}


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def tokens() -> dict[str, tuple[str, str]]:
    return {
        name: (light, dark)
        for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", frame.asset("page.css"))
    }


@pytest.mark.parametrize("theme", [0, 1])
def test_text_and_runs_contrast_with_their_ground(theme: int) -> None:
    """WCAG 2.2: 4.5 for text, 3 for what a figure is made of."""
    colours = {name: pair[theme] for name, pair in tokens().items()}
    for ink, ground in itertools.product(("ink", "ink-2", "accent", "bad"), ("paper", "panel")):
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for ink, ground in (("accent", "accent-soft"), ("bad", "bad-soft"), ("warn", "warn-soft"), ("ink-2", "sunk")):
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for run in (name for name in colours if name.startswith(("run-", "part-compute", "part-exposed"))):
        assert contrast(colours[run], colours["panel"]) >= 3, run


def test_the_policy_stops_every_request_and_foreign_script(browser: Browser, demo: Path) -> None:
    opened = Opened(browser, demo)
    blocked = opened.page.evaluate(
        """async () => { const seen = [];
        document.addEventListener('securitypolicyviolation', event => seen.push(event.effectiveDirective));
        await fetch('https://example.com').catch(() => null);
        const image = new Image(); image.src = 'https://example.com/x.png';
        const script = document.createElement('script'); script.textContent = 'window.hacked = 1'; document.body.append(script);
        await new Promise(done => setTimeout(done, 100));
        return [seen, window.hacked]; }"""
    )
    assert {"connect-src", "img-src", "script-src-elem"} <= set(blocked[0])
    assert blocked[1] is None
