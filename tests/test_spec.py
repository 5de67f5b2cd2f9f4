"""The spec: the one source of flags, files and records; and the numbers that follow from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from scalelab import spec as specs
from scalelab.batch import derive
from scalelab.cli.flags import TITLES
from scalelab.errors import ScalelabError
from scalelab.spec import Spec
from scalelab.strategies import degrees


def refused(values: dict[str, Any], degrees: tuple[int, int, int] = (1, 1, 1)) -> str:
    with pytest.raises(ScalelabError) as caught:
        derive(specs.from_mapping(values, flags=True), degrees, cores=4)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2
    return str(caught.value)


@pytest.mark.parametrize("name", specs.FIELDS)
def test_every_field_has_help_and_a_group(name: str) -> None:
    assert len(specs.HELP[name]) > 5
    assert specs.GROUPS[name] in TITLES


def test_a_spec_survives_yaml(tmp_path: Path) -> None:
    spec = Spec(model="a: b", model_args={"depth": 3, "names": ["x", "y"]}, lr=1e-5, name="ünïcode 'quoted'", batch=12)
    (tmp_path / "spec.yaml").write_text(specs.dump(spec), encoding="utf-8")
    assert specs.load(tmp_path / "spec.yaml") == spec


def test_text_is_converted_to_the_fields_type() -> None:
    spec = specs.from_mapping({"workers": "2", "lr": "1e-3", "compile": "true"})
    assert (spec.workers, spec.lr, spec.compile) == (2, 1e-3, True)


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    assert "unknown key 'micro_bach' (did you mean 'micro_batch'?)" in refused({"micro_bach": 3})


@pytest.mark.parametrize(
    ("values", "named", "why"),
    [
        ({"workers": 0}, "--workers 0", "expected at least 1 ("),
        ({"workers": "two"}, "--workers 'two'", "expected a whole number ("),
        ({"steps": 1.5}, "--steps 1.5", "expected a whole number ("),
        ({"target_accuracy": "95%"}, "--target-accuracy '95%'", "expected a number ("),
        ({"compile": "x"}, "--compile 'x'", "expected true or false ("),
        ({"name": [1]}, "--name [1]", "expected text ("),
        ({"model_args": 3}, "--model-args 3", "expected keys with values ("),
        ({"lr": 0}, "--lr 0", "more than 0"),
        ({"lr": "nan"}, "--lr 'nan'", "more than 0"),
        ({"lr": float("inf")}, "--lr inf", "finite"),
        ({"momentum": 1.0}, "--momentum 1.0", "less than 1"),
        ({"target_accuracy": 70}, "--target-accuracy 70", "at most 1"),
        ({"precision": "fp8"}, "--precision 'fp8'", "fp32"),
        ({"master_port": 70000}, "--master-port 70000", "65535"),
        ({"classes": 1}, "--classes 1", "at least 2"),
        ({"augment": "blur"}, "--augment 'blur'", "crop+flip"),
    ],
)
def test_a_wrong_value_is_refused_by_flag_value_and_reason(values: dict[str, Any], named: str, why: str) -> None:
    message = refused(values)
    assert message.startswith(named)
    assert why in message


def test_yaml_errors_name_the_file(tmp_path: Path) -> None:
    for text, part in (
        ("- 1\n- 2", "mapping"),
        ("model: [", "YAML"),
        ("name: 2020-02-31", "day is out of range"),
        ("3: 2", "a mapping of keys"),
        ("worker: 2", "did you mean 'workers'?"),
        ("workers: 0", "at least 1"),
    ):
        path = tmp_path / "wrong.yaml"
        path.write_text(text)
        with pytest.raises(ScalelabError, match=r"wrong\.yaml") as caught:
            specs.load(path)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_spec_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="no such spec file"):
        specs.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (64, 32, 1)),
        ({"batch": 48}, (48, 24, 1)),
        ({"batch_per_worker": 10}, (20, 10, 1)),
        ({"batch": 48, "micro_batch": 8}, (48, 8, 3)),
        ({"batch": 48, "accumulate": 4}, (48, 6, 4)),
        ({"batch": 48, "accumulate": 4, "micro_batch": 6}, (48, 6, 4)),
    ],
)
def test_batch_is_micro_batch_times_accumulate_times_replicas(values: dict[str, Any], expected: tuple[int, int, int]) -> None:
    found = derive(specs.from_mapping({"workers": 2, **values}), (2, 1, 1), cores=4)
    assert (found.batch, found.micro_batch, found.accumulate) == expected
    assert found.batch == found.micro_batch * found.accumulate * found.replicas


def test_degrees_multiply_to_the_workers() -> None:
    assert "is 2, not --workers 3" in refused({"workers": 3}, (2, 1, 1))
    assert derive(Spec(workers=4), (2, 2, 1), cores=4).replicas == 4


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"workers": 3, "batch": 64}, ("--batch 64", "3 workers", "63 or 66")),
        ({"workers": 3, "batch": 2}, ("--batch 2", "nearest: 3")),
        ({"workers": 3, "batch": 30, "accumulate": 4}, ("--accumulate 4", "10 samples", "2 or 5")),
        ({"workers": 3, "batch": 30, "micro_batch": 3}, ("--micro-batch 3", "2 or 5")),
        ({"workers": 3, "batch": 30, "micro_batch": 5, "accumulate": 3}, ("45", "not --batch 30")),
        ({"workers": 3, "batch": 30, "batch_per_worker": 10}, ("twice", "give one")),
    ],
)
def test_what_does_not_divide_is_refused_with_the_nearest_that_do(values: dict[str, Any], parts: tuple[str, ...]) -> None:
    message = refused(values, (3, 1, 1))
    for part in parts:
        assert part in message


def test_threads_are_the_cores_shared_out() -> None:
    assert derive(Spec(workers=2), (2, 1, 1), cores=8).threads == 4
    crowded = derive(Spec(workers=4), (4, 1, 1), cores=2)
    assert (crowded.threads, crowded.oversubscribed) == (1, True)
    assert not derive(Spec(workers=2, threads_per_worker=1), (2, 1, 1), cores=2).oversubscribed


def test_a_spec_is_a_value() -> None:
    with pytest.raises(AttributeError):
        Spec().workers = 3  # type: ignore[misc]
    assert msgspec.structs.replace(Spec(), workers=2) == Spec(workers=2)


def test_one_process_on_several_nodes_is_refused_with_the_flags_of_each_place() -> None:
    with pytest.raises(ScalelabError, match=r"is one process, not 2: use --workers 1 \(with --slurm --nodes 1"):
        degrees(Spec(strategy="single", workers=2))
