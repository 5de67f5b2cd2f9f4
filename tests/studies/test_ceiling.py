"""The machine's ceiling, and the share of it that a training achieves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scalelab.launch.pool import Pool
from scalelab.record.schema import Ceiling, Figure, ModelFacts, TrainRecord
from scalelab.studies.ceiling import achieved, ceiling
from tests.trainings import completed


def known(**values: Any) -> Ceiling:
    """A ceiling of 1 GFLOP/s for each of two workers."""
    figures = {
        "flops_per_second": Figure(unit="FLOP/s", median=1e9, n=6),
        "copy_bytes_per_second": Figure(unit="bytes/s", median=1e10),
    }
    where = {"product": "", "host": "h", "processor": "p", "cores": 2, "device": "cpu", "threads": 1, "workers": 2, "torch": "2"}
    return Ceiling(**{**figures, **where, "precision": "fp32", **values})


@pytest.fixture(scope="module")
def record(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> TrainRecord:
    return completed(pool, tmp_path_factory.mktemp("runs"), strategy="ddp", workers=2, epochs=10)


def test_it_is_measured_by_all_workers_at_once(pool: Pool, record: TrainRecord) -> None:
    found = ceiling(pool, 1, "cpu", "fp32", workers=2)
    for figure, least, most in ((found.flops_per_second, 1e9, 1e13), (found.copy_bytes_per_second, 1e8, 1e12)):
        assert least < (figure.median or 0) < most or "too busy" in str(figure.reason)
    assert (found.workers, found.threads, found.device, found.precision) == (2, 1, "cpu", "fp32")
    assert found.flops_per_second.median is None or 0 < (achieved(record, found).median or 0) < 1


def test_the_share_is_of_all_workers_ceilings(record: TrainRecord) -> None:
    assert record.model is not None
    flops, rate = record.model.flops_per_image.median, record.images_per_second
    assert flops is not None
    assert rate.median is not None
    assert rate.ci95 is not None
    found = achieved(record, known())
    assert found.median == pytest.approx(rate.median * flops / 2e9)
    assert found.ci95 == pytest.approx((rate.ci95[0] * flops / 2e9, rate.ci95[1] * flops / 2e9))


def test_a_share_above_one_is_marked(record: TrainRecord) -> None:
    found = achieved(record, known(flops_per_second=Figure(unit="FLOP/s", median=1.0)))
    assert "cannot be" in str(found.reason)


def test_what_is_to_know_of_the_ceiling_is_to_know_of_the_share(record: TrainRecord) -> None:
    found = achieved(record, known(flops_per_second=Figure(unit="FLOP/s", median=1e12, n=6, reason="measured in a storm")))
    assert found.median is not None
    assert "measured in a storm" in str(found.reason)


def test_what_is_missing_is_the_reason(record: TrainRecord) -> None:
    uncounted = msgspec.structs.replace(record, model=ModelFacts(name="m", parameters=1, bytes=4))
    slow = msgspec.structs.replace(record, images_per_second=Figure(unit="images/s", reason="too short"))
    for found, part in (
        (achieved(record, None), "was not measured"),
        (achieved(record, known(workers=1)), "1 workers x 1 threads"),
        (achieved(uncounted, known()), "not counted"),
        (achieved(slow, known()), "too short"),
    ):
        assert found.median is None
        assert part in str(found.reason)
