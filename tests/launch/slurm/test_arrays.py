"""Arrays as large as a site takes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from scalelab.launch.slurm.arrays import Sent, send_all, spread
from scalelab.launch.slurm.programs import SlurmError

FULL = "sbatch: QOSMaxSubmitJobPerUserLimit"


def site(room: int, words: str = FULL) -> tuple[list[int], Sent[int, int]]:
    """Ten tasks, four an array, to a site with room for so many; the sizes that were tried, and what became of them."""
    tried: list[int] = []

    def submit(some: Sequence[int]) -> int:
        tried.append(len(some))
        taken = sum(size for size in taken_sizes)
        if taken + len(some) > room:
            raise SlurmError(words)
        taken_sizes.append(len(some))
        return len(some)

    taken_sizes: list[int] = []
    return tried, send_all(range(10), 4, submit, room > 0, lambda: False)


def test_all_are_taken_where_there_is_room() -> None:
    assert site(10) == ([4, 4, 2], Sent([4, 4, 2], []))


def test_as_many_as_fit_are_taken_and_the_rest_has_its_reason() -> None:
    tried, sent = site(5)
    assert tried == [4, 4, 2, 1]
    assert sent == Sent([4, 1], [5, 6, 7, 8, 9], FULL)


def test_another_refusal_is_not_tried_with_fewer() -> None:
    tried, sent = site(4, "sbatch: Invalid qos specification")
    assert tried == [4, 4]
    assert (sent.arrays, sent.why) == ([4], "sbatch: Invalid qos specification")


def test_where_not_one_is_taken_the_refusal_is_raised() -> None:
    with pytest.raises(SlurmError, match="QOSMaxSubmit"):
        site(0)


def test_indices_begin_where_they_are_to() -> None:
    assert (spread(3, None), spread(3, 1, 7)) == ("0-2", "7-9%1")
