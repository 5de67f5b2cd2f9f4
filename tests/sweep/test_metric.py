"""Metrics caught from what programs write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.sweep.metric import Metric, catch, from_json, from_pattern, look


def caught(tmp_path: Path, text: str, output: str, start: int = 0) -> tuple[float | None, str | None]:
    """What --metric ``text`` finds in ``output``."""
    path = tmp_path / "0.out"
    path.write_text(output, encoding="utf-8")
    values, fault = catch([from_pattern(text)], path, start, tmp_path, {})
    return next(iter(values.values())), fault


def test_the_last_match_counts(tmp_path: Path) -> None:
    assert caught(tmp_path, r"accuracy=accuracy (\S+)", "accuracy 0.1\naccuracy 0.9\nend") == (0.9, None)


def test_without_a_group_the_whole_match_counts(tmp_path: Path) -> None:
    assert caught(tmp_path, r"n=\d+$", "of 10: 12") == (12.0, None)


def test_what_an_earlier_attempt_wrote_does_not_count(tmp_path: Path) -> None:
    value, fault = caught(tmp_path, r"a=a (\d)", "a 1\nnothing", start=4)
    assert (value, fault) == (None, "a: nothing in the output matches 'a (\\\\d)'")


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", "nothing in the output"),
        ("a 1e999", "it is inf"),
        ("a x", "'x' is no number"),
        ("a nan", "it is nan"),
        ("a inf", "it is inf"),
    ],
)
def test_why_there_is_no_metric(tmp_path: Path, output: str, said: str) -> None:
    value, fault = caught(tmp_path, r"a=a (\S+)", output)
    assert value is None
    assert said in str(fault)


def test_output_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "0.out").write_bytes(b"\xff\xfe\0 \xc3\xa9 l\xc3\xa4nge 3.5\n\xff")
    assert catch([from_pattern("x=länge ([0-9.]+)")], tmp_path / "0.out", 0, tmp_path, {}) == ({"x": 3.5}, None)


def test_the_last_json_line_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "0.out").write_text('{"a": {"b": [1, 2]}}\n{"a": {"b": [3, 4.5]}}\n{not json\nend\n')
    assert catch([from_json("-:a.b.-1"), from_json("x=-:a.b.0")], tmp_path / "0.out", 0, tmp_path, {})[0] == {"-1": 4.5, "x": 3.0}


def test_a_json_file_that_was_there_before_is_not_this_tasks(tmp_path: Path) -> None:
    metric = from_json("out.json:score")
    (tmp_path / "out.json").write_text('{"score": 1}')
    (tmp_path / "0.out").touch()
    before = look([metric], tmp_path)
    assert "as it was before" in str(catch([metric], tmp_path / "0.out", 0, tmp_path, before)[1])
    (tmp_path / "new.json").write_text('{"score": 2}')
    os.replace(tmp_path / "new.json", tmp_path / "out.json")
    assert catch([metric], tmp_path / "0.out", 0, tmp_path, before) == ({"score": 2.0}, None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "was not written"),
        ("{", "cannot be read as JSON"),
        ('{"b": 1}', "no 'score'"),
        ('{"score": "x"}', "'x' is no number"),
    ],
)
def test_what_is_wrong_with_a_json_file(tmp_path: Path, body: str | None, said: str) -> None:
    if body is not None:
        (tmp_path / "out.json").write_text(body)
    (tmp_path / "0.out").touch()
    values, fault = catch([from_json("out.json:score")], tmp_path / "0.out", 0, tmp_path, {"out.json": None})
    assert values == {"score": None}
    assert said in str(fault)


def test_the_form_of_the_flags() -> None:
    assert from_json("accuracy=C=D:x.json:a.b") == Metric("accuracy", file="C=D:x.json", path="a.b")
    assert from_json("out/{task}.json:a.b") == Metric("b", file="out/{task}.json", path="a.b")
    for text, make in (
        ("a", from_pattern),
        ("a=(", from_pattern),
        ("a=", from_pattern),
        ("file", from_json),
        ("x=file:", from_json),
    ):
        with pytest.raises(ScalelabError, match="--metric"):
            make(text)


def test_a_whole_number_beyond_all_floats_is_no_metric(tmp_path: Path) -> None:
    (tmp_path / "0.out").write_text(f'{{"a": 1{"0" * 400}}}')
    assert catch([from_json("-:a")], tmp_path / "0.out", 0, tmp_path, {}) == ({"a": None}, "a: it is a number beyond all measure")
