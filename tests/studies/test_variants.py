"""The whole table and the odd shapes: what is in them, and that they pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab.launch.pool import Pool
from scalelab.models.odd import ODD as MODELS
from scalelab.record.schema import VerifyRecord
from scalelab.spec import Spec
from scalelab.strategies import STRATEGIES
from scalelab.studies.verifying.variants import ODD, SCHEDULES, Variant, everything, grid
from scalelab.studies.verifying.verify import label, verify
from tests.trainings import tiny


def run(pool: Pool, out: Path, variants: list[Variant], **values: Any) -> VerifyRecord:
    base = tiny(out, **{"steps": 3, "workers": 2, "batch_norm": "sync", "test_limit": 4, **values})
    return verify(pool, base, variants, False, lambda cell: None)


def cells(variants: list[Variant]) -> list[tuple[str, str]]:
    return [(v.values["strategy"], v.values["engine"]) for v in variants]


def test_everything_has_every_cell_of_the_table() -> None:
    wanted = {(name, engine) for name, row in STRATEGIES.items() for engine in row.where if name != "single"}
    assert set(cells(everything(Spec(workers=2)))) == wanted


def test_everything_has_every_schedule_and_with_four_workers_the_hybrids() -> None:
    two, four = everything(Spec(workers=2, batch=32)), everything(Spec(workers=4, batch=32))
    schedules = {v.values.get("pipeline_schedule", "1f1b") for v in two if v.values["strategy"] == "pipeline"}
    assert schedules == set(SCHEDULES)
    assert not [v for v in two if "stages" in v.values or "shard" in v.values]
    assert {v.values["strategy"] for v in four if v.values.get("stages") == 2} == {"model", "pipeline"}
    assert {v.values["strategy"] for v in four if v.values.get("shard") == 2} == {"zero2", "zero3"}


def test_pipelines_get_as_many_micro_batches_as_stages_unless_the_user_says_how_many() -> None:
    assert {v.values.get("accumulate") for v in everything(Spec(workers=2, batch=32)) if v.values["strategy"] == "pipeline"} == {
        2
    }
    said = everything(Spec(workers=2, batch=32, accumulate=4))
    assert not [v for v in said if "accumulate" in v.values]


def test_the_grid_tries_every_cell_in_every_shape() -> None:
    found = grid(Spec(workers=2))
    shapes = {v.shape for v in found}
    assert {f"odd:{name}" for name in MODELS} <= {str(shape) for shape in shapes}
    assert set(ODD) == set(MODELS)
    spreading = {(name, engine) for name, row in STRATEGIES.items() for engine in row.where if row.axis is not None}
    for shape in shapes:
        assert set(cells([v for v in found if v.shape == shape])) == spreading


def torch_only(variants: list[Variant], **wanted: Any) -> list[Variant]:
    return [v for v in variants if v.values["engine"] == "torch" and all(v.values.get(k) == w for k, w in wanted.items())]


@pytest.mark.parametrize("shape", sorted({str(v.shape) for v in grid(Spec(workers=2))}))
def test_no_strategy_is_wrong_in_an_odd_shape(pool: Pool, tmp_path: Path, shape: str) -> None:
    """Passed, or refused before anything was trained."""
    variants = [v for v in torch_only(grid(tiny(tmp_path, workers=2))) if v.shape == shape]
    result = run(pool, tmp_path, variants)
    statuses = {label(cell): cell.status for cell in result.cells}
    assert set(statuses.values()) <= {"passed", "not_applicable"}, statuses
    assert {cell.strategy for cell in result.cells if cell.status == "passed"} >= {"ddp", "zero1"}
    refused = {cell.strategy for cell in result.cells if cell.status == "not_applicable"}
    assert refused == {"odd:sometimes": {"model", "pipeline"}, "odd:choosy": {"model", "pipeline", "zero2", "zero3"}}.get(
        shape, set()
    )


def test_four_workers_and_the_hybrids(pool: Pool, tmp_path: Path) -> None:
    variants = [v for v in torch_only(everything(tiny(tmp_path, workers=4))) if {"stages", "shard"} & set(v.values)]
    result = run(pool, tmp_path, variants, workers=4)
    assert len(result.cells) == 7
    assert [cell.status for cell in result.cells] == ["passed"] * 7, [c for c in result.cells if c.status != "passed"]


@pytest.mark.parametrize("values", [{"compress": "fp16"}, {"compress": "powersgd"}], ids=["fp16", "powersgd"])
def test_what_changes_the_result_says_by_how_much(pool: Pool, tmp_path: Path, values: dict[str, Any]) -> None:
    (cell,) = run(pool, tmp_path, [Variant({"strategy": "ddp", "engine": "torch", **values}, tuple(values))]).cells
    assert cell.status == "differs_by_design"
    assert cell.max_parameter_difference is not None
    assert cell.max_parameter_difference > 1e-9
    assert f"--compress {values['compress']} changes what is computed: the first update by " in (cell.reason or "")


def test_bf16_parameters_are_compared_in_float32_on_a_smooth_twin(pool: Pool, tmp_path: Path) -> None:
    (cell,) = run(pool, tmp_path, [Variant({"strategy": "zero3", "engine": "torch", "param_dtype": "bf16"})]).cells
    assert (cell.status, cell.precision) == ("differs_by_design", "fp32")


def test_local_sgd_is_compared_where_it_equals_single(pool: Pool, tmp_path: Path) -> None:
    (cell,) = run(pool, tmp_path, [Variant({"strategy": "local-sgd", "engine": "torch"})], sync_every=7, outer_momentum=0.9).cells
    assert cell.status == "passed", cell


def test_a_cell_that_is_not_there_is_not_applicable_with_those_that_are(pool: Pool, tmp_path: Path) -> None:
    missing, there = run(
        pool, tmp_path, [Variant({"strategy": "zero3", "engine": "horovod"}), Variant({"strategy": "ddp", "engine": "torch"})]
    ).cells
    assert missing.status == "not_applicable"
    assert "it has ddp; zero3 is there with torch, deepspeed" in (missing.reason or "")
    assert there.status == "passed"
