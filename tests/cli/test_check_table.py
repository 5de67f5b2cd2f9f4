"""``scalelab check-table`` at the terminal and for machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalelab.cli.check_table import ranges
from tests.conftest import Command
from tests.docs.test_tools import valid

TABLE = "gpus,batch_per_gpu,compute_s,comm_s,bandwidth_gbs\n2,512,7.53,1.59,140\n"
FLAGS = ["--model", "resnet18", "--samples", 50000]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(TABLE)
    return tmp_path / "t.csv"


def test_an_impossible_cell_is_named_with_its_arithmetic(command: Command, table: Path) -> None:
    ended = command("check-table", table, *FLAGS)
    assert ended.status == 1
    assert "49 steps x 44.7 MB x 2(n-1)/n / 1.59 s = 1.38 GB/s" in ended.out
    assert "1 cell can't be right" in ended.out
    assert "11,173,962 trained parameters" in ended.out


def test_equal_rows_and_verdicts_are_shown_once_with_the_digits_printed(command: Command, table: Path) -> None:
    table.write_text(TABLE.replace(",140\n", ",140.3\n") + "2,512,7.53,1.59,140.3\n" * 2)
    ended = command("check-table", table, *FLAGS)
    assert ended.out.count("1.38 GB/s; 140.3 is 102 times that") == 1
    assert "lines 2-4, bandwidth_gbs: impossible" in ended.out
    assert ended.out.count("140.3 GB/s") == 1


def test_lines_that_follow_each_other_are_a_range() -> None:
    assert ranges([2, 3, 4, 7, 9, 10]) == "2-4, 7, 9-10"


def test_the_document_is_as_its_schema_says(command: Command, table: Path) -> None:
    ended = command("check-table", table, *FLAGS, "--json")
    valid(ended.out, "check-table")
    found = json.loads(ended.out)
    assert found["rows"][0]["bus_gbs"] == pytest.approx(1.377, abs=1e-3)
    assert found["impossible"] == 1


def test_a_table_that_holds_ends_well(command: Command, table: Path) -> None:
    table.write_text(TABLE.replace(",140\n", ",1.4\n"))
    ended = command("check-table", table, *FLAGS)
    assert (ended.status, "contradicts itself" in ended.out) == (0, True)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--model", "resnet81", "--samples", "5"], "unknown model 'resnet81'"),
        (["--model", "resnet18"], "required: --samples"),
        (["--model", "resnet18", "--samples", "many"], "expected a whole number"),
        (["--model", "resnet18", "--samples", "9" * 5000], "expected a whole number"),
        (["--model", "resnet18", "--samples", "5", "--link-gbs", "0"], "--link-gbs '0': expected a number above 0"),
        (["--model", "inception_v3", "--samples", "5"], "use --image-size 299"),
        (["--model", "resnet18", "--samples", "5", "--classes", "1"], "--classes '1'"),
        (["--model", "resnet18", "--samples", "5", "--dtype", "int8"], "invalid choice"),
    ],
)
def test_a_mistake_is_told_in_one_line(command: Command, table: Path, words: list[str], part: str) -> None:
    ended = command("check-table", table, *words)
    assert ended.status == 2
    assert part in ended.error
