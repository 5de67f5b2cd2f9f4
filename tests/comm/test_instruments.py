"""Bytes, time and absence of collectives, on real ranks."""

from __future__ import annotations

import pytest

from scalelab.comm.instruments import wire_factor
from scalelab.comm.profiled import timed, union
from tests.comm.conftest import OnRanks


@pytest.mark.parametrize("size", [2, 3])
def test_bytes_of_each_collective_are_a_rings(on_ranks: OnRanks, size: int) -> None:
    on_ranks("bytes_are_counted", size)


@pytest.mark.parametrize("size", [2, 3])
def test_communication_off_is_a_local_copy(on_ranks: OnRanks, size: int) -> None:
    on_ranks("communication_off_copies_locally", size)


def test_communication_off_refuses_an_unknown_collective(on_ranks: OnRanks) -> None:
    on_ranks("communication_off_refuses_what_it_does_not_know", 2)


def test_the_time_in_collectives_is_read_from_the_profiler(on_ranks: OnRanks) -> None:
    on_ranks("collectives_are_timed", 2)


def test_a_rank_waits_only_while_it_computes_nothing(on_ranks: OnRanks) -> None:
    on_ranks("what_is_computed_meanwhile_is_not_waited_for", 2)


@pytest.mark.parametrize("size", [2, 3])
def test_the_collectives_of_a_step_can_be_done_by_themselves(on_ranks: OnRanks, size: int) -> None:
    on_ranks("a_steps_collectives_are_done_by_themselves", size)


@pytest.mark.parametrize(
    ("computing", "waited"),
    [([], 4.0), ([(0, 10)], 0.0), ([(1, 2), (1, 2)], 3.0), ([(2, 5)], 3.0), ([(3, 4)], 4.0), ([(1, 6)], 1.0)],
)
def test_waiting_is_what_is_left_of_the_collectives(computing: list[tuple[float, float]], waited: float) -> None:
    seen = timed([(0e6, 2e6), (1e6, 3e6), (5e6, 6e6)], [(start * 1e6, end * 1e6) for start, end in computing])
    assert (seen.total, seen.waited) == (4.0, waited)


def test_a_short_time_between_two_operators_is_no_waiting() -> None:
    operators = [(start, start + 50.0) for start in range(0, 1000, 100)]
    assert timed([(0.0, 1000.0)], operators).waited == pytest.approx(50e-6)  # after the last one
    assert timed([(0.0, 1000.0)], operators[::2]).waited == pytest.approx((4 * 150 + 150) * 1e-6)


def test_nccl_reduce_scatters_really() -> None:
    assert wire_factor("reduce_scatter_tensor", "nccl", 4) == 0.75
    assert wire_factor("_reduce_scatter_base_", "gloo", 4) == 1.5


@pytest.mark.parametrize(
    ("intervals", "total"),
    [([], 0.0), ([(0, 2), (1, 3), (5, 6)], 4.0), ([(5, 6), (0, 10), (2, 3)], 10.0), ([(1, 2), (2, 3)], 2.0)],
)
def test_overlapping_collectives_count_once(intervals: list[tuple[float, float]], total: float) -> None:
    assert union(intervals) == total
