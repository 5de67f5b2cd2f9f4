"""The mean of gradients over replicas that are not wrapped."""

from __future__ import annotations

import pytest

from tests.comm.conftest import OnRanks


@pytest.mark.parametrize("size", [1, 3])
def test_a_gradient_that_some_ranks_lack_counts_as_zero_and_one_that_all_lack_stays_none(on_ranks: OnRanks, size: int) -> None:
    on_ranks("gradients_are_averaged", size)
