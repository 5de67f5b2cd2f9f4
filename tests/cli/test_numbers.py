"""Numbers given as words: what is taken, and what is refused in one line."""

from __future__ import annotations

import pytest

from scalelab.cli.numbers import positive, whole
from scalelab.errors import ScalelabError


@pytest.mark.parametrize(("given", "value"), [("1", 1), (4, 4), ("65535", 65535)])
def test_a_whole_number_is_taken(given: object, value: int) -> None:
    assert whole("--n", given, most=65535) == value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0", "--n 0: expected a whole number, at least 1"),
        ("-1", "--n '-1': expected a whole number, at least 1"),
        ("2.5", "--n '2.5': expected a whole number, at least 1"),
        ("²", "--n '²': expected a whole number, at least 1"),
        ("65536", "--n 65536: expected a whole number, at least 1, at most 65,535"),
        ("9" * 5000, f"--n {'9' * 40}: expected a whole number, at least 1, at most 65,535"),
    ],
)
def test_anything_else_is_refused(given: object, said: str) -> None:
    with pytest.raises(ScalelabError) as caught:
        whole("--n", given, most=65535)
    assert str(caught.value) == said


def test_a_number_above_0_is_taken() -> None:
    assert positive("--timeout", "0.5", "seconds") == 0.5


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_number_that_is_not_above_0_is_refused(given: str) -> None:
    with pytest.raises(ScalelabError) as caught:
        positive("--timeout", given, "seconds")
    assert str(caught.value) == f"--timeout {given!r}: expected seconds above 0"
