"""Markdown that stays a table whatever the names hold."""

from __future__ import annotations

import re

from scalelab.report import markdown
from scalelab.report.subject import Subject
from tests.report import samples


def rendered(records, **changes) -> str:
    return markdown.render(Subject(records, **{"title": "T", "question": "Q", **changes}))


def test_the_table_has_a_line_per_run_and_equal_columns() -> None:
    content = rendered(samples.demo()[0], verify=samples.verify())
    lines = [line for line in content.splitlines() if line.startswith("|")]
    assert len(lines) == 8
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_names_cannot_break_the_table_or_become_markup() -> None:
    record, _ = samples.record("ddp", spec={"name": "a|b\n<script>[x](y) `c` *d*"})
    line = next(line for line in rendered([record]).splitlines() if line.startswith("| a"))
    assert r"a\|b \<script\>\[x\](y) \`c\` \*d\*" in line


def test_an_underscore_within_a_word_is_left_alone() -> None:
    assert markdown.escape("basic_cnn _x_") == r"basic_cnn \_x\_"


def test_absent_figures_point_to_their_reason() -> None:
    content = rendered(samples.demo()[0])
    number = re.search(r"\| – \[(\d+)\] \|", content).group(1)
    assert re.search(rf"^{number}\. \w", content, re.MULTILINE)


def test_a_traceback_cannot_close_its_block() -> None:
    assert markdown.fenced("```\nx").startswith("````text\n```\nx\n````")
