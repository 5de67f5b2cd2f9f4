"""The machine's ceiling, and the share of it that a training achieves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scalelab.launch.ceiling import Occupied, measured
from scalelab.launch.pool import Pool
from scalelab.record.schema import Ceiling, Figure, Host, ModelFacts, TrainRecord
from scalelab.studies.running.ceiling import achieved, better, doubtful
from tests.studies import made
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
    found = measured(pool, Occupied(2, 1, "cpu", "fp32"))
    for figure, least, most in ((found.flops_per_second, 1e9, 1e13), (found.copy_bytes_per_second, 1e8, 1e12)):
        assert least < (figure.median or 0) < most or "too busy" in str(figure.reason)
    assert (found.workers, found.threads, found.device, found.precision) == (2, 1, "cpu", "fp32")
    assert doubtful(found) or 0 < (achieved(record, [found]).median or 0) < 1


def test_the_share_is_of_all_workers_ceilings(record: TrainRecord) -> None:
    assert record.model is not None
    flops, rate = record.model.flops_per_image.median, record.images_per_second
    assert flops is not None
    assert rate.median is not None
    assert rate.ci95 is not None
    found = achieved(record, [known()])
    assert found.median == pytest.approx(rate.median * flops / 2e9)
    assert found.ci95 == pytest.approx((rate.ci95[0] * flops / 2e9, rate.ci95[1] * flops / 2e9))


def test_a_share_above_one_is_marked(record: TrainRecord) -> None:
    found = achieved(record, [known(flops_per_second=Figure(unit="FLOP/s", median=1.0))])
    assert "cannot be" in str(found.reason)


def test_of_a_ceiling_that_is_too_low_there_is_no_share(record: TrainRecord) -> None:
    found = achieved(record, [known(flops_per_second=Figure(unit="FLOP/s", median=1e12, n=6, reason="measured in a storm"))])
    assert (found.median, found.reason) == (None, "the ceiling was measured in a storm")


def test_of_two_measurements_the_one_on_a_quiet_machine_is_kept_else_the_higher() -> None:
    def at(value: float, reason: str | None) -> Ceiling:
        return known(product=f"{value}", flops_per_second=Figure(unit="FLOP/s", median=value, n=6, reason=reason))

    for a, b, kept in ((at(1, None), at(2, "busy"), 1), (at(1, "busy"), at(2, "busy"), 2), (at(1, "busy"), at(2, None), 2)):
        for found in (better(a, b), better(b, a)):
            assert (found.flops_per_second.median, found.product) == (kept, f"{kept}")
    assert doubtful(at(1, "busy"))
    assert not doubtful(at(1, None))
    slow = msgspec.structs.replace(at(1, None), copy_bytes_per_second=Figure(unit="bytes/s", median=1.0, reason="busy"))
    assert doubtful(slow)
    assert better(slow, at(2, "busy")).copy_bytes_per_second.median == 1e10


def test_what_is_missing_is_the_reason(record: TrainRecord) -> None:
    uncounted = msgspec.structs.replace(record, model=ModelFacts(name="m", parameters=1, bytes=4))
    slow = msgspec.structs.replace(record, images_per_second=Figure(unit="images/s", reason="too short"))
    for found, part in (
        (achieved(record, []), "the machine's ceiling was not measured"),
        (achieved(record, [known(workers=1)]), "1 workers x 1 threads"),
        (achieved(uncounted, [known()]), "not counted"),
        (achieved(slow, [known()]), "too short"),
    ):
        assert found.median is None
        assert part in str(found.reason)


def on_two(record: TrainRecord) -> TrainRecord:
    """The same training, a worker on each of two hosts."""
    return made.on(record, Host(name="h1", cores=1, workers=1), Host(name="h2", cores=8, workers=1))


def of_host(name: str, flops: float = 1e9, reason: str | None = None, **values: Any) -> Ceiling:
    return known(host=name, workers=1, flops_per_second=Figure(unit="FLOP/s", median=flops, n=6, reason=reason), **values)


def test_over_hosts_the_share_is_of_all_their_own_ceilings(record: TrainRecord) -> None:
    alone = achieved(record, [known(flops_per_second=Figure(unit="FLOP/s", median=2e9, n=6))]).median
    assert alone is not None
    assert achieved(on_two(record), [of_host("h1"), of_host("h2", 3e9, threads=8)]).median == pytest.approx(alone)


def test_over_hosts_each_must_have_its_own(record: TrainRecord) -> None:
    for ceilings, said in (
        ([], "the machine's ceiling was not measured"),
        ([of_host("h1")], "h2's ceiling was not measured"),
        ([of_host("h1"), of_host("h2", reason="measured in a storm")], "h2's ceiling was measured in a storm"),
    ):
        found = achieved(on_two(record), ceilings)
        assert (found.median, found.reason) == (None, said)
