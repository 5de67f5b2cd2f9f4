"""Links between pages lead somewhere, and every page can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scalelab.cli import COMMANDS
from scalelab.strategies import STRATEGIES
from tests.docs.pages import ROOT, pages

LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
PLACES = re.compile(r"(?<![\w.])/(?:home|root|work|tmp|Users)/|[a-z]+\.(?:org|io|com)/simple")
LATER = {"docs/benchmarks.md"}
"""written by a program after a measurement"""


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"^#+ (.*)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        file = (page.parent / target).resolve() if target else page
        if str(file.relative_to(ROOT)) in LATER and not file.exists():
            continue
        assert file.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor:
            assert anchor[1:] in anchors(file), f"{page.name} links to {target}{anchor}; headings: {sorted(anchors(file))}"


def test_every_page_can_be_found_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {target for target, _ in LINK.findall(index.read_text(encoding="utf-8"))}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} <= linked


def test_every_command_and_every_strategy_is_documented() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"[{name}](" not in index] == []
    strategies = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in strategies for name in STRATEGIES)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_page_names_somebodys_machine(page: Path) -> None:
    assert not PLACES.search(page.read_text(encoding="utf-8"))
