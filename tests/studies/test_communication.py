"""communication: bandwidths by their definitions, limits, what can't be, and where two readings of one time disagree."""

from __future__ import annotations

import msgspec
import pytest

from scalelab.errors import ScalelabError
from scalelab.measure.statistics import absent
from scalelab.record.schema import Communication, Host
from scalelab.record.study import Findings
from scalelab.studies.communication import wire
from scalelab.studies.communication.communication import STUDY
from scalelab.studies.scaling.scaling import BASE
from scalelab.studies.study import Point, Result, Run
from tests.studies import made

GB = 1e9
LAB = Host(name="lab", cores=2)


def findings(shares: dict[int, Communication], noise: float = 0.01, step: float = 0.1, copied: float = 40 * GB) -> Findings:
    """communication on 2 workers, for each batch per worker a step's communication; each sends 10 MB a step."""
    asked = made.asked(STUDY, workers=[2], batch_per_worker=list(shares))

    def trained(point: Point) -> Result:
        batch = int(point.factors["batch_per_worker"])
        if point.factors["role"] == BASE:
            return made.result(point, made.record(point, step, batch, noise=noise))
        record = made.on(made.record(point, step, 2 * batch, shares[batch], 1e7, noise), LAB)
        return made.result(point, record, ceiling=made.copying(copied))

    return STUDY.analyse(asked, [trained(point) for point in STUDY.points(asked)])


def bus(findings: Findings, batch: int = 32) -> dict[str, float | None]:
    row = next(r for r in findings.tables[1].rows if r.factors["batch_per_worker"] == batch)
    return {key: figure.median for key, figure in row.figures.items()}


def test_an_epoch_is_its_steps() -> None:
    found = findings({32: made.seconds(0.02, 0.01)})
    row = next(r for r in found.tables[0].rows if r.factors["workers"] == 2)
    for key, step in (
        ("total", 0.02),
        ("exposed", 0.01),
        ("hidden", 0.01),
        ("compute", 0.1 - 0.001 - 0.01),
        ("data_wait", 0.001),
    ):
        assert row.figures[key].median == pytest.approx(step * made.SAMPLES / 64), key
    assert row.figures["exposed_share"].median == pytest.approx(0.1)
    assert row.figures["efficiency"].median == pytest.approx(1.0)


def test_bus_bandwidth_is_bytes_sent_over_time() -> None:
    found = bus(findings({32: made.seconds(0.02, 0.01, bare=0.005)}))
    assert found["bus_total"] == pytest.approx(1e7 / 0.02)
    assert found["bus_exposed"] == pytest.approx(1e7 / 0.01)
    assert found["bus_bare"] == pytest.approx(1e7 / 0.005)
    assert found["of_bare"] == pytest.approx(0.25)
    assert found["bytes_epoch"] == pytest.approx(1e7 * 100)
    assert found["limit"] == 20 * GB
    assert found["of_limit"] == pytest.approx(2 * GB / (20 * GB))


def test_a_published_tables_bandwidth_comes_out_as_it_must() -> None:
    """49 steps of 44.7 MB of gradients on 2 workers in 1.59 s is 1.4 GB/s, not 140."""
    point = STUDY.points(made.asked(STUDY))[1]
    record = made.record(point, 1.0, 1024, made.seconds(1.59 / 49, 1.59 / 49), 44.7e6 * 2 * (2 - 1) / 2)
    assert wire.bandwidth(lambda r: r.communication_seconds.total)(record).median == pytest.approx(1.378e9, rel=0.01)


def test_a_bandwidth_over_a_time_that_may_be_nothing_is_absent() -> None:
    found = findings({32: made.seconds(0.02, 0.001, noise=1.5)})
    row = found.tables[1].rows[0]
    assert row.figures["bus_exposed"].reason == "the time it would be over is not distinguishable from zero"


def test_what_the_machine_can_not_carry_is_impossible() -> None:
    marks = findings({32: made.seconds(0.02, 0.01, bare=0.0001)}).tables[1].rows[0].marks
    assert len(marks) == 1
    assert marks[0].startswith("impossible: 93.1 GiB/s on the bus by themselves, and this machine carries 18.6 GiB/s at most")
    assert findings({32: made.seconds(0.02, 0.01, bare=0.001)}).tables[1].rows[0].marks == []


def test_more_than_a_step_is_marked_in_both_tables() -> None:
    times = made.seconds(0.3, 0.2)
    impossible = msgspec.structs.replace(times.exposed, reason="more than a whole step, which cannot be")
    found = findings({32: msgspec.structs.replace(times, exposed=impossible)})
    for table in found.tables:
        marks = table.rows[-1].marks
        assert "impossible: more than a whole step, which cannot be" in marks
        assert any(mark.startswith("in collectives for 300 ms of a step that takes 100 ms") for mark in marks)


def limit(*hosts: Host, device: str = "cpu", copied: float | None = None) -> tuple[float | None, str | None]:
    point = STUDY.points(made.asked(STUDY))[1]
    ceilings = () if copied is None else (made.copying(copied),)
    record = made.on(made.record(point, 0.1, 64, made.seconds(0.02, 0.01), 1e7), *hosts, device=device)
    found = wire.limit(Run(0, made.Path("."), record, ceilings))
    return found.median, found.reason


def test_the_limit_is_the_memorys_or_the_slowest_hosts_link() -> None:
    fast, slow = Host(name="a", links={"eth0": 1.25 * GB, "eth1": 12.5 * GB}), Host(name="b", links={"eth0": 1.25 * GB})
    assert limit(LAB, copied=10 * GB) == (5 * GB, None)
    assert limit(fast, slow, copied=10 * GB) == (1.25 * GB, None)
    assert limit(fast, LAB) == (None, "a host does not tell the speed of its link")
    assert limit(LAB) == (None, "the machine's copy bandwidth was not measured")
    assert limit(LAB, device="cuda")[0] is None


def test_readings_that_disagree_are_both_shown_with_a_likely_reason() -> None:
    said = findings({32: made.seconds(0.04, 0.01, waited=0.02), 128: made.seconds(0.04, 0.02, waited=0.01)}).sentences
    more, less = (next(one for one in said if "disagree" in one and f"x {batch} images" in one) for batch in (32, 128))
    assert "10.0 ms" in more
    assert "20.0 ms" in more
    assert "between two operators, where it is long, counts as waiting" in more
    assert "only the probe sees that" in less
    assert any("in 0 of 2 cases" in one for one in said)


def test_readings_that_agree_are_counted() -> None:
    said = findings({32: made.seconds(0.04, 0.01, waited=0.012)}).sentences
    assert not any("disagree" in one for one in said)
    assert any("in 1 of 1 cases" in one for one in said)


def test_a_disagreement_within_the_noise_is_said_to_be_that() -> None:
    said = findings({32: made.seconds(0.04, 0.01, waited=0.014, noise=0.3)}).sentences
    assert any("their intervals are wide enough for that" in one for one in said)


def test_a_probe_that_can_not_tell_is_not_compared() -> None:
    said = findings({32: made.seconds(0.04, 0.001, waited=0.01, noise=1.5)}).sentences
    assert any("the probe can't tell it from nothing (1.00 ms), the waits read 10.0 ms of a step" in one for one in said)


def test_the_answer_claims_a_difference_between_batches_only_by_intervals() -> None:
    clear = findings({32: made.seconds(0.04, 0.03), 128: made.seconds(0.04, 0.01)}).answer
    assert "adds 30.0 %" in clear
    assert "a difference that the intervals show" in clear
    near = findings({32: made.seconds(0.04, 0.011, noise=0.2), 128: made.seconds(0.04, 0.010, noise=0.2)}).answer
    assert "the intervals do not tell the two apart" in near


def test_bare_collectives_are_held_against_those_of_a_step() -> None:
    assert any("slowed by waiting" in one for one in findings({32: made.seconds(0.02, 0.01, bare=0.005)}).sentences)
    assert any("no difference was shown" in one for one in findings({32: made.seconds(0.02, 0.01, bare=0.0199)}).sentences)


def test_without_probes_there_is_no_study() -> None:
    with pytest.raises(ScalelabError, match=r"^--probe-steps 0: leaves out the probes"):
        STUDY.points(made.asked(STUDY, probe_steps=0))


def test_a_strategy_that_can_not_be_silenced_says_so() -> None:
    times = made.seconds(0.04, 0.01)
    none = absent("s", "not probed: a stage waits")
    found = findings({32: msgspec.structs.replace(times, exposed=none, hidden=none, waited=none)})
    assert found.answer == "What communication adds to a step could not be told: not probed: a stage waits."
    assert bus(found)["bus_total"] is not None
