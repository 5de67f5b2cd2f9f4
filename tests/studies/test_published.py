"""A published table, recomputed and judged."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from scalelab.errors import ScalelabError
from scalelab.record.schema import Figure, ModelFacts
from scalelab.studies.published.published import Assumed, Checked, Printed, TableCheck, as_printed, recompute
from scalelab.studies.published.tables import check, read

RESNET18 = ModelFacts(
    name="resnet18", parameters=11_173_962, trained=11_173_962, bytes=44_695_848,
    flops_per_image=Figure(unit="FLOP", median=3.329e9, n=1),
)  # fmt: skip
CIFAR = Assumed(samples=50_000)


def row(**values: Any) -> Printed:
    return Printed(**{"line": 2, "gpus": 2, "batch_per_gpu": 512, "compute_s": 7.53, "comm_s": 1.59, **values})


def checked(*rows: Printed, assumed: Assumed = CIFAR) -> TableCheck:
    return check("t.csv", rows, RESNET18, assumed)


def said(found: TableCheck) -> list[tuple[int, str, str]]:
    return [(r.printed.line, v.cell, v.level) for r in found.rows for v in r.verdicts]


def text_of(found: TableCheck) -> str:
    return " ".join(v.text for r in found.rows for v in r.verdicts)


def test_the_published_row_comes_to_one_hundredth_of_what_it_claims() -> None:
    found = checked(row(bandwidth_gbs=140.3))
    (only,) = found.rows
    assert (only.steps, only.partial, only.gradient_bytes) == (49, 848, 44_695_848)
    assert only.bus_gbs == pytest.approx(49 * 44.695848e6 / 1.59 / 1e9)
    assert only.bus_gbs == pytest.approx(1.4, abs=0.03)
    assert only.ratio == pytest.approx(140.3 / 1.3774, rel=1e-3)
    assert said(found) == [(2, "bandwidth_gbs", "impossible")]
    assert "49 steps x 44.7 MB x 2(n-1)/n / 1.59 s = 1.38 GB/s; 140.3 is 102 times that" in text_of(found)
    assert found.impossible == 1
    assert "too large" in found.answer


def test_the_sum_rounds_as_the_row_does() -> None:
    assert checked(row(bandwidth_gbs=140.3)).answer.endswith("bandwidths are printed 102 times too large")


def test_only_what_a_number_rests_on_is_assumed() -> None:
    def assumed(*rows: Printed, **values: Any) -> str:
        return "; ".join(checked(*rows, assumed=Assumed(samples=50_000, **values)).assumptions)

    assert "an epoch is 50,000 samples" in assumed(row())
    assert "an epoch is" not in assumed(row(), per="step")
    assert "bandwidth_gbs" not in assumed(row())
    assert "bandwidth_gbs is a mean" in assumed(row(), row(bandwidth_gbs=1.0))


@pytest.mark.parametrize(("value", "shown"), [(140.3, "140.3"), (1234567.25, "1234567.25"), (7.0, "7"), (1e-310, "1e-310")])
def test_a_number_is_shown_as_printed(value: float, shown: str) -> None:
    assert as_printed(value) == shown


def test_one_step_is_one() -> None:
    found = checked(row(compute_s=1.0), row(gpus=128, compute_s=1.0, bandwidth_gbs=10.0))
    assert "1 step x 44.7 MB" in text_of(found)
    assert "an epoch on 128 GPUs has 1 step, on 2 49" in found.rows[1].verdicts[-1].assumes


@pytest.mark.parametrize("cell", ["compute_s", "comm_s"])
@pytest.mark.parametrize("value", [1e-310, 1e300])
def test_a_time_that_no_step_takes_gives_no_infinite_figures(cell: str, value: float) -> None:
    found = checked(row(**{cell: value, "bandwidth_gbs": 1.4}))
    assert (2, cell, "impossible") in said(found)
    assert "inf" not in text_of(found)
    (only,) = found.rows
    assert (only.bus_gbs is None) == (cell == "comm_s")
    assert (only.tflops is None) == (cell == "compute_s")


def test_a_bandwidth_beyond_all_is_compared_with_the_link_alone() -> None:
    found = checked(row(comm_s=1e9, bandwidth_gbs=1e308))
    assert found.rows[0].ratio is None
    assert said(found) == [(2, "bandwidth_gbs", "impossible")]


def test_the_time_to_check_a_table_grows_as_its_rows() -> None:
    rows = [row(line=2 + k, gpus=3 - k % 2, compute_s=7.53 / (3 - k % 2), bandwidth_gbs=140.3) for k in range(10_000)]
    began = time.process_time()
    assert checked(*rows).doubtful == 0
    assert time.process_time() - began < 3  # 0.2 s; where each row is held against each other one, 11 s


def test_algorithm_and_bus_bandwidth_differ_by_the_rings_factor() -> None:
    four = recompute(row(gpus=4), RESNET18, CIFAR)
    assert four.steps == 25
    assert four.sent_bytes == pytest.approx(1.5 * 44_695_848)
    assert four.bus_gbs == pytest.approx(1.5 * (four.algorithm_gbs or 0))


@pytest.mark.parametrize("printed", [1.3774, 1.28, 1.35, 1.48])  # bus; in GiB; without the last batch; rounded up
def test_readings_of_the_same_thing_are_not_wrong(printed: float) -> None:
    assert said(checked(row(bandwidth_gbs=printed))) == []


@pytest.mark.parametrize("printed", [0.345, 0.524])  # algorithm and bus bandwidth of four GPUs
def test_either_of_the_two_bandwidths_may_be_printed(printed: float) -> None:
    assert said(checked(row(gpus=4, comm_s=3.2, bandwidth_gbs=printed))) == []


def test_what_a_row_assumes_can_be_said() -> None:
    dropped = recompute(row(), RESNET18, Assumed(samples=50_000, drop_last=True))
    assert dropped.steps == 48
    half = recompute(row(), RESNET18, Assumed(samples=50_000, dtype="bf16"))
    assert half.gradient_bytes == 22_347_924
    step = recompute(row(comm_s=1.59 / 49), RESNET18, Assumed(samples=50_000, per="step"))
    assert step.bus_gbs == pytest.approx(recompute(row(), RESNET18, CIFAR).bus_gbs)


@pytest.mark.parametrize(
    ("factor", "level", "mistake"),
    [
        (8, "impossible", "bits instead of bytes"),
        (1000, "impossible", "megabytes taken for gigabytes"),
        (1 / 49, "doubtful", "one step's bytes over the time of an epoch"),
        (0.5, "doubtful", "fp16 gradients"),
    ],
)
def test_a_common_mistake_that_gives_the_number_is_named(factor: float, level: str, mistake: str) -> None:
    found = checked(row(bandwidth_gbs=1.3774 * factor))
    assert said(found)[0] == (2, "bandwidth_gbs", level)
    assert mistake in text_of(found)


def test_all_mistakes_that_give_the_number_are_named() -> None:
    eight = checked(row(gpus=8, bandwidth_gbs=8 * (recompute(row(gpus=8), RESNET18, CIFAR).bus_gbs or 0.0)))
    assert "it would fit bits instead of bytes or the bytes of all GPUs together" in text_of(eight)


def test_less_than_the_times_give_is_doubtful_and_not_impossible() -> None:
    found = checked(row(bandwidth_gbs=0.9))  # true where comm_s is only what was not hidden
    assert said(found) == [(2, "bandwidth_gbs", "doubtful")]


@pytest.mark.parametrize("cell", ["compute_s", "comm_s", "bandwidth_gbs"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_what_is_no_time_and_no_bandwidth_is_impossible(cell: str, value: float) -> None:
    found = checked(row(**{cell: value}))
    assert said(found) == [(2, cell, "impossible")]


def test_one_gpu_exchanges_nothing() -> None:
    assert said(checked(row(gpus=1, comm_s=0.0))) == []
    alone = checked(row(gpus=1, comm_s=0.5, bandwidth_gbs=3.0))
    assert said(alone) == [(2, "comm_s", "impossible"), (2, "bandwidth_gbs", "impossible")]
    assert alone.rows[0].bus_gbs is None


def test_no_link_carries_it() -> None:
    assert (2, "bandwidth_gbs", "impossible") in said(checked(row(bandwidth_gbs=2500.0)))
    assert "any link today" in text_of(checked(row(bandwidth_gbs=2500.0)))
    quick = checked(
        row(comm_s=0.01), assumed=Assumed(samples=50_000, link_gbs=32)
    )  # no bandwidth is printed: the time is too short
    assert said(quick) == [(2, "comm_s", "doubtful")]  # true where it is only what was not hidden
    assert said(checked(row(comm_s=0.01))) == []


def test_no_gpu_computes_so_fast() -> None:
    found = checked(row(compute_s=0.03))
    assert said(found) == [(2, "compute_s", "impossible")]
    assert found.rows[0].tflops == pytest.approx(3.329e9 * 512 * 49 / 0.03 / 1e12)
    assert said(checked(row(), assumed=Assumed(samples=50_000, peak_tflops=5))) == [(2, "compute_s", "impossible")]


def test_the_same_batch_on_more_gpus_takes_as_long() -> None:
    found = checked(row(), row(line=3, gpus=4, compute_s=7.5, comm_s=3.2))
    assert said(found) == [(3, "compute_s", "doubtful")]  # half the steps in the same time
    assert said(checked(row(), row(line=3, gpus=4, compute_s=3.8, comm_s=3.2))) == []


def test_more_speedup_than_gpus_is_doubtful() -> None:
    base = row(gpus=1, compute_s=20.0, comm_s=0.0)
    assert said(checked(base, row(line=3, compute_s=7.0, comm_s=0.5))) == [(3, "compute_s", "doubtful")]
    assert said(checked(base, row(line=3, compute_s=9.8, comm_s=0.5))) == []


def test_a_batch_larger_than_the_data_has_no_step() -> None:
    assumed = Assumed(samples=100, drop_last=True)
    assert said(checked(row(), assumed=assumed)) == [(2, "batch_per_gpu", "impossible")]


def test_a_model_whose_flops_are_unknown_is_not_judged_by_them() -> None:
    unknown = ModelFacts(name="m", parameters=10, trained=10, bytes=40)
    found: Checked = recompute(row(compute_s=1e-6), unknown, CIFAR)
    assert found.tflops is None


HEAD = "gpus,batch_per_gpu,compute_s,comm_s,bandwidth_gbs\n"


def test_columns_come_in_any_order_and_the_last_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\ufeffcomm_s, note ,gpus,Batch_per_GPU,compute_s\n\n1.59,x,2,512,7.53\n")
    assert read(path) == [row(line=3)]
    path.write_text(HEAD + "2,512,7.53,1.59,\n4,512,7.5,3.2,1e2\n")
    assert [r.bandwidth_gbs for r in read(path)] == [None, 100.0]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "is empty; it is to have columns gpus"),
        (HEAD, "has column names and no row"),
        (HEAD.replace(",", ";") + "2;512;7.53;1.59;1\n", "line 1: columns are separated by semicolons"),
        (HEAD.replace(",", "\t"), "line 1: columns are separated by tabs"),
        ("gpus,batch_per_gpu,compute_s\n2,512,7\n", "line 1: there is no column comm_s"),
        ("2,512,7.53,1.59,140\n", "there is no column gpus and no batch_per_gpu"),
        (HEAD + "2,512,7.53,1.59,140\n2,512,fast,1.59,140\n", "line 3: compute_s 'fast' is not a number"),
        (HEAD + "2,512,7.53,,140\n", "line 2: comm_s '' is not a number"),
        (HEAD + "2,512,7.53,1.59,140 GB/s\n", "line 2: bandwidth_gbs '140 GB/s' is not a number"),
        (HEAD + "0,512,7.53,1.59,140\n", "line 2: gpus '0' is not a whole number from 1 on"),
        (HEAD + "2,1.5,7.53,1.59,140\n", "line 2: batch_per_gpu '1.5' is not a whole number"),
        (HEAD + "2,99999999999999999999999999,7.53,1.59,140\n", "batch_per_gpu '99999999999999999999999999' is 2**53 or more"),
        (HEAD + "2,512,7,53,1,59,140\n", "line 2: 7 cells under 5 column names"),
        ("gpus,gpus,batch_per_gpu,compute_s,comm_s\n", "column gpus is there twice"),
        (HEAD + '2,512,7,1,"' + "9" * 200_000 + '"\n', "cannot be read as CSV: field larger"),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_by_its_line(tmp_path: Path, content: str, part: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ScalelabError) as error:
        read(tmp_path / "t.csv")
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_binary_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="no such file"):
        read(tmp_path / "t.csv")
    with pytest.raises(ScalelabError, match="is a folder, not a CSV file"):
        read(tmp_path)
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScalelabError, match="cannot be read as text"):
        read(tmp_path / "t.csv")
