"""Clearing up is not broken off, and what came meanwhile is not lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from scalelab.launch.signals import ENDING, named, uninterrupted


class Came(Exception):
    """A signal reached its handler."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    def raise_(*_: object) -> None:
        raise Came

    before = {number: signal.signal(number, raise_) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_waits_for_the_end_of_the_block(number: signal.Signals) -> None:
    done = []

    def clear_up() -> None:
        with uninterrupted():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("all")

    with pytest.raises(Came):
        clear_up()
    assert done == ["all"]


def test_a_blocks_own_error_is_what_is_raised() -> None:
    def clear_up() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            raise OSError("the clearing up's own")

    with pytest.raises(OSError, match="own"):
        clear_up()


def test_the_handlers_are_back_after_it() -> None:
    with uninterrupted():
        pass
    with pytest.raises(Came):
        signal.raise_signal(signal.SIGHUP)


@pytest.mark.parametrize(
    ("number", "name"), [(9, "SIGKILL"), (signal.SIGRTMIN, "SIGRTMIN"), (signal.SIGRTMIN + 1, "SIGRTMIN+1"), (33, "SIG33")]
)
def test_every_signal_has_a_name(number: int, name: str) -> None:
    assert named(number) == name
