"""Placeholders filled in, and what is wrong with a command, before anything starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scalelab.errors import ScalelabError
from scalelab.sweep.metric import Metric
from scalelab.sweep.planning import called, check, findable, notes, tasks
from scalelab.sweep.template import fill, names


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{a}", "1"),
        ("--x={a}{b}", "--x=1{a}"),
        ("{{a}}", "{a}"),
        ("{{{a}}}", "{1}"),
        ('{{"lr": {a}}}', '{"lr": 1}'),
        ("{größe}", "ß\n"),
        ("a}}b{{", "a}b{"),
        ("plain", "plain"),
    ],
)
def test_placeholders_are_filled_and_braces_escaped(text: str, filled: str) -> None:
    assert fill(text, {"a": "1", "b": "{a}", "größe": "ß\n"}) == filled


@pytest.mark.parametrize("text", ['{"lr": 1}', "{", "a}", "{a", "{a b}", "{}", "{1}"])
def test_a_brace_that_is_no_placeholder_is_refused(text: str) -> None:
    with pytest.raises(ScalelabError, match="a brace that holds no parameter's name"):
        names(text)


def test_an_unknown_placeholder_is_told_with_the_nearest_name() -> None:
    with pytest.raises(
        ScalelabError, match=r"argument 2, '\{bacth\}': no parameter is called 'bacth' \(did you mean 'batch'\?\)"
    ):
        check(["./p", "--batch", "{bacth}"], ["batch"], [], [])


def test_an_unused_parameter_is_told() -> None:
    with pytest.raises(ScalelabError, match=r"parameter 'lr' is not used: write \{lr\}"):
        check(["./p", "{batch}"], ["lr", "batch"], [], [])


def test_a_parameter_may_be_used_where_a_metric_is_read() -> None:
    assert check(["./p"], ["lr"], [], [Metric("x", file="out-{lr}.json", path="x")]) == []


def test_an_unused_column_of_a_file_is_noted() -> None:
    assert check(["./p", "{lr}"], ["lr", "comment"], ["lr", "comment"], []) == ["column 'comment' is not used in the command"]


def test_repeats_differ_in_their_seeds_and_run_all_points_before_the_next_repeat() -> None:
    found = tasks(["./p", "{x}", "{seed}", "{task}", "{repeat}"], [{"x": "a"}, {"x": "b"}], 2, 7)
    assert [task.argv[1:] for task in found] == [
        ["a", "7", "0", "1"],
        ["b", "7", "1", "1"],
        ["a", "8", "2", "2"],
        ["b", "8", "3", "2"],
    ]
    assert [(task.task, task.repeat, task.seed) for task in found] == [(0, 0, 7), (1, 0, 7), (2, 1, 8), (3, 1, 8)]


def test_a_seed_that_is_a_parameter_is_the_seed() -> None:
    found = tasks(["./p", "{seed}"], [{"seed": "5"}, {"seed": "9"}], 1, 0)
    assert [(task.argv[1], task.seed) for task in found] == [("5", 5), ("9", 9)]


def test_repeats_that_nothing_tells_apart_are_noted() -> None:
    assert "no {seed}" in notes(["./p", "{x}"], 3)[0]
    assert notes(["./p", "{seed}"], 3) == notes(["./p"], 1) == []


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ScalelabError, match="no-such-program: is not found"):
        findable(["no-such-program", "{x}"])
    findable(["sh"])
    findable(["{which}"])


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["python3", "-u", "train.py", "{x}"], "train.py"),
        (["/usr/bin/python3.11", "-m", "pkg.train"], "pkg.train"),
        (["./program", "a"], "program"),
        (["bash", "-c", "echo {x}"], "bash"),
        (["scalelab", "train", "--json"], "scalelab train"),
    ],
)
def test_what_a_program_is_called(argv: list[str], name: str) -> None:
    assert called(argv) == name


def test_what_runs_a_task_imports_the_standard_library_alone() -> None:
    code = "import sys; before = set(sys.modules); import scalelab.sweep.task; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    foreign = {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    assert foreign == {"scalelab"}
