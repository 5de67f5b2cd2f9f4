"""Two outcomes compared: what counts as a difference, and what never passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scalelab.launch.pool import Pool
from scalelab.record.schema import Cell, TrainRecord
from scalelab.spec import Spec
from scalelab.studies.verifying.equivalence import Outcome, compare, diagnosis, differences
from tests.trainings import completed


def test_a_nan_is_a_difference() -> None:
    assert np.isnan(differences({"model/a": np.array([np.nan])}, {"model/a": np.array([1.0])})["model/a"])
    assert "first step's loss" in diagnosis([float("nan")], {"model/a": 0.0}, [], 1e-9)


def test_differences_are_relative_to_each_tensor() -> None:
    found = differences({"a": np.array([1.0, 2.2]), "n": np.array(3)}, {"a": np.array([1.0, 2.0]), "n": np.array(4)})
    assert found == {"a": pytest.approx(0.1), "n": pytest.approx(0.25)}


def outcome_of(record: TrainRecord, tensors: dict[str, np.ndarray]) -> Outcome:
    return Outcome(Spec(), record, tensors)


@pytest.fixture
def record(pool: Pool, tmp_path: Path) -> TrainRecord:
    return completed(pool, tmp_path, steps=2, evaluate=False)


BLANK = Cell(strategy="mine", workers=2, status="not_applicable")


def test_a_nan_in_the_second_tensor_does_not_pass(record: TrainRecord) -> None:
    """``max(0.0, nan)`` is 0.0: the order must not matter."""
    reference = {"model/a": np.ones(2), "model/b": np.ones(2)}
    for broken in reference:
        mine = {**reference, broken: np.array([1.0, np.nan])}
        cell = compare(BLANK, outcome_of(record, reference), outcome_of(record, mine), 1e-9)
        assert cell.status == "failed"
        assert np.isnan(cell.max_parameter_difference)
        assert cell.reason == f"1 of 2 tensors are not finite ({broken.removeprefix('model/')})"


def test_a_tensor_of_another_shape_fails_by_name(record: TrainRecord) -> None:
    reference, mine = {"model/a": np.ones((2, 3))}, {"model/a": np.ones((1, 3))}  # equal when broadcast
    cell = compare(BLANK, outcome_of(record, reference), outcome_of(record, mine), 1e-9)
    assert (cell.status, cell.reason) == ("failed", "its tensors have other shapes: a [1, 3] for [2, 3]")


def test_equal_infinities_do_not_differ_and_a_huge_buffer_hides_nothing() -> None:
    mask, weight = np.array([-np.inf, 0.0]), np.array([1.0, 2.0])
    reference = {"model/mask": mask, "model/huge": np.array([1e30]), "model/w": weight, "model/v": weight}
    apart = differences({**reference, "model/w": weight + 1e-6}, reference)
    assert apart["model/mask"] == 0.0
    assert apart["model/w"] == pytest.approx(5e-7)
