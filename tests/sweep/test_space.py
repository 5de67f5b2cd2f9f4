"""From flags to points."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.sweep.space import MOST, Axis, Range, grid, listed, points, zipped


def test_a_grid_is_the_product_with_the_last_parameter_fastest() -> None:
    found = points([grid("lr=0.10,0.01"), grid("batch=128,512")], None, 0)
    assert [(point["lr"], point["batch"]) for point in found] == [
        ("0.10", "128"),
        ("0.10", "512"),
        ("0.01", "128"),
        ("0.01", "512"),
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=1", ["1"]),
        ("a=", [""]),
        ("a=x,", ["x", ""]),
        ('a="1,2",3', ["1,2", "3"]),
        ('a="say ""hi""\nand go"', ['say "hi"\nand go']),
        ("a= x , y ", [" x ", " y "]),
        ('a=["x,y", 0.10, true, null, {"k": 1}, 12]', ["x,y", "0.10", "true", "null", '{"k": 1}', "12"]),
        ("a=[0-1],[2-3]", ["[0-1]", "[2-3]"]),
        ("a=b=c,--d", ["b=c", "--d"]),
        ("größe=ß,日本", ["ß", "日本"]),
        ("a=http://x:80", ["http://x:80"]),
    ],
)
def test_values_are_texts_as_given(text: str, values: list[str]) -> None:
    axis = grid(text)
    assert isinstance(axis, Axis)
    assert [value for (value,) in axis.rows] == values


def test_zip_changes_parameters_together() -> None:
    axes = [zipped(["a=1,2", "b=3,4"]), grid("c=x,y")]
    found = [tuple(point.values()) for point in points(axes, None, 0)]
    assert found == [("1", "3", "x"), ("1", "3", "y"), ("2", "4", "x"), ("2", "4", "y")]


@pytest.mark.parametrize(
    ("texts", "said"),
    [(["a=1,2", "b=3"], "a has 2, b has 1"), (["a=1", "a=2"], "'a' is there twice"), (["a"], "must be NAME=VALUE")],
)
def test_what_is_wrong_with_a_zip(texts: list[str], said: str) -> None:
    with pytest.raises(ScalelabError, match=said):
        zipped(texts)


def test_ranges_are_drawn_again_from_the_same_seed() -> None:
    axes = [grid("lr=log:1e-4:1e-1"), grid("p=uniform:0:0.5"), grid("n=int:1:3"), grid("opt=sgd,adam")]
    found = points(axes, 200, 3)
    assert found == points(axes, 200, 3)
    assert found != points(axes, 200, 4)
    assert list(found[0]) == ["lr", "p", "n", "opt"]
    rates = [float(point["lr"]) for point in found]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert 40 < sum(rate < 10**-2.5 for rate in rates) < 160  # half of them: on a logarithmic scale it is the middle
    assert {point["n"] for point in found} == {"1", "2", "3"}
    assert {point["opt"] for point in found} == {"sgd", "adam"}


def test_draws_of_values_alone_are_all_different() -> None:
    axes = [grid("a=1,2,3"), grid("b=1,2,3"), zipped(["c=1,2", "d=1,2"])]
    found = points(axes, 18, 0)
    assert len({tuple(point.items()) for point in found}) == 18
    with pytest.raises(ScalelabError, match="more than the 18 that there are"):
        points(axes, 19, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a=log:0:1", "0 < low < high"),
        ("a=uniform:2:1", "low < high"),
        ("a=int:1.5:3", "whole numbers"),
        ("a=lgo:1:2", "did you mean 'log'"),
        ("a=log:1e-3:1e", "no two numbers"),
        ("a=log:1e-3,1e-1", "a range is log:LOW:HIGH"),
        ("a=int:3", "a range is int:LOW:HIGH"),
        ("a=['x', 'y']", "a list is JSON"),
        ("1a=2", "must be NAME=VALUE"),
        ("a", "must be NAME=VALUE"),
        ("a=[]", "has no values"),
        ("a=1\n2", "stands in quotes"),
    ],
)
def test_what_is_wrong_with_a_grid(text: str, said: str) -> None:
    with pytest.raises(ScalelabError, match=said):
        grid(text)


def test_a_range_without_random_is_refused() -> None:
    with pytest.raises(ScalelabError, match="needs --random N"):
        points([Range("lr", "log", 1e-4, 1.0)], None, 0)


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(ScalelabError, match="'a' is given more than once"):
        points([grid("a=1"), grid("a=2")], None, 0)


def test_too_many_points_are_refused_before_they_are_made() -> None:
    many = ",".join(map(str, range(1000)))
    with pytest.raises(ScalelabError, match=f"{10**12:,} tasks.*{MOST:,}"):
        points([grid(f"{name}={many}") for name in "abcd"], None, 0)


def test_no_parameter_is_one_point() -> None:
    assert points([], None, 0) == [{}]


@pytest.mark.parametrize(
    ("name", "body", "rows"),
    [
        ("a.csv", 'lr,note\n0.10,"a, b"\n1e-3,\n\n', [("0.10", "a, b"), ("1e-3", "")]),
        ("a.csv", "\ufefflr,note\r\n1,x\r\n", [("1", "x")]),
        ("a.jsonl", '{"lr": 0.10, "note": "ü\\nb"}\n\n{"note": true, "lr": 1}\n', [("0.10", "ü\nb"), ("1", "true")]),
    ],
)
def test_the_rows_of_a_file(tmp_path: Path, name: str, body: str, rows: list[tuple[str, ...]]) -> None:
    (tmp_path / name).write_text(body, encoding="utf-8", newline="")
    found = listed(tmp_path / name)
    assert (found.names, list(found.rows)) == (("lr", "note"), rows)


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("a.csv", "a,b\n1\n", "line 2 has 1 values, not 2"),
        ("a.csv", "a,a\n1,2\n", "the same name"),
        ("a.csv", "a b\n1\n", "can't be a parameter's name"),
        ("a.csv", "", "has no rows"),
        ("a.jsonl", "[1]\n", "line 1 is no object"),
        ("a.jsonl", '{"a": 1}\n{"b": 1}\n', "line 2 has b; the first has a"),
        ("a.jsonl", "{\n", "line 1 is no JSON"),
        ("a.txt", "a\n", "valid: csv, jsonl"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, name: str, body: str, said: str) -> None:
    (tmp_path / name).write_text(body)
    with pytest.raises(ScalelabError, match=said):
        listed(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="cannot be read: No such file"):
        listed(tmp_path / "none.csv")
