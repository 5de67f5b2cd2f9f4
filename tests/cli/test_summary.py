"""The lines of a run's summary that are put together from several figures."""

from __future__ import annotations

import msgspec

from scalelab.cli.summary import arithmetic, throughput, used
from scalelab.record import text
from scalelab.record.schema import Figure, ModelFacts, Resources
from tests.report.samples import record


def test_arithmetic_is_throughput_times_flops() -> None:
    made, _ = record()
    assert arithmetic(made) == text.ABSENT  # its model's FLOPs were not counted
    counted = ModelFacts(name="m", parameters=1, bytes=4, flops_per_image=Figure(unit="FLOP", median=6e7, n=1))
    fast = msgspec.structs.replace(made, model=counted, images_per_second=Figure(unit="images/s", median=2000.0, n=3))
    assert arithmetic(fast) == "120 GFLOP/s: 60.0 MFLOP an image, forward and backward"


def test_one_block_is_no_blocks() -> None:
    said = [throughput(Figure(unit="images/s", median=5.0, n=n)) for n in (1, 2)]
    assert said == ["5.00 images/s, n = 1 block of 10 steps", "5.00 images/s, n = 2 blocks of 10 steps"]


def test_of_what_a_worker_used_only_the_measured_is_said() -> None:
    none = Figure(unit="", reason="no GPU")
    fields = dict.fromkeys(Resources.__struct_fields__, none)
    found = Resources(**{**fields, "sample_seconds": 1.0, "cpu_percent": Figure(unit="%", median=87.4, n=2)})
    assert used(found) == "87 % of a core"
    assert used(Resources(**{**fields, "sample_seconds": 1.0})) == used(None) == text.ABSENT


def test_decimal_prefixes() -> None:
    assert [text.prefixed(value, "B/s") for value in (0, 12, 1.26e7, 3.2e12, 0.5)] == [
        "0 B/s",
        "12.0 B/s",
        "12.6 MB/s",
        "3.20 TB/s",
        "0.500 B/s",
    ]
