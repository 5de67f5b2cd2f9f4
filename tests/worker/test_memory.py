"""What a worker holds is what the formulas say: tensors by category in a real step, on models that are known."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import torchvision

from scalelab import spec as specs
from scalelab.launch.asking import ask
from scalelab.launch.local import listen
from scalelab.launch.pool import Pool
from scalelab.measure.tensors import AT_UPDATE, CATEGORIES, MOST_SAVED
from scalelab.record.schema import Memory, Tensors
from scalelab.strategies import STRATEGIES
from scalelab.strategies.blocks import blocks
from scalelab.strategies.formulas.explanation import Explained
from tests.trainings import EVERY, SPREAD, completed, equal, final, tiny

WORKERS = 4
RESNET: dict[str, Any] = {
    "model": "torchvision:resnet50", "model_args": {}, "image_size": 32, "batch": 2 * WORKERS, "train_limit": 2 * WORKERS,
    "workers": WORKERS,
}  # fmt: skip


class Found(NamedTuple):
    """One strategy, on the rank that holds most: its own part, its tensors at the peak, the process's growth; and the formulas."""

    held: dict[str, int]
    tensors: dict[str, int]
    resident: int
    said: dict[str, int]


def said(pool: Pool, out: Path, **values: Any) -> dict[str, int]:
    """Bytes that a rank holds by formula."""
    found = msgspec.convert(ask(pool, "scalelab.worker.explain:explain", tiny(out, **values)), Explained)
    return {part.what: part.bytes for part in found.held}


def measured(pool: Pool, out: Path, strategy: str) -> Found:
    """resnet50 on real ranks."""
    file = out / f"{strategy}.yaml"
    file.write_text(specs.dump(tiny(out, strategy=strategy, **RESNET)))
    with listen(None) as listener:
        address, port = listener.getsockname()
        env = {
            "WORLD_SIZE": WORKERS,
            "LOCAL_WORLD_SIZE": WORKERS,
            "MASTER_ADDR": address,
            "MASTER_PORT": port,
            "GLOO_SOCKET_IFNAME": "lo",
        }
        processes = [
            pool.start(
                "tests.worker.holding:rank", [str(file), str(out / strategy)], {k: str(v) for k, v in {**env, "RANK": rank}.items()},
                out / f"{strategy}-{rank}.txt", ("SCALELAB_LISTEN_FD", listener.fileno()) if rank == 0 else None,
            )
            for rank in range(WORKERS)
        ]  # fmt: skip
        assert [pool.wait(process) for process in processes] == [0] * WORKERS, (out / f"{strategy}-0.txt").read_text()
    ranks = [json.loads((out / f"{strategy}-{rank}.json").read_text()) for rank in range(WORKERS)]
    most = max(ranks, key=lambda one: sum(one["tensors"][name] for name in CATEGORIES))
    return Found(**most, said=said(pool, out, strategy=strategy, **RESNET))


@pytest.fixture(scope="module")
def resnet50(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """resnet50 on 4 workers under each strategy."""
    out = tmp_path_factory.mktemp("resnet50")
    return {strategy: measured(pool, out, strategy) for strategy in SPREAD}


def test_the_order_of_strategies_is_that_of_the_paper(resnet50: dict[str, Found]) -> None:
    """Rajbhandari et al. 2020, figure 1: each stage shards one thing more. zero2 and zero3 differ in how much is gathered at once."""
    ddp, zero1, zero2, zero3 = (resnet50[name].tensors for name in SPREAD)
    assert ddp["optimizer"] > 3.9 * zero1["optimizer"]
    assert zero1["optimizer"] >= zero2["optimizer"] == zero3["optimizer"]
    assert ddp[AT_UPDATE] == zero1[AT_UPDATE] == WORKERS * zero2[AT_UPDATE] == WORKERS * zero3[AT_UPDATE]
    assert ddp["parameters"] == zero1["parameters"]
    assert zero2["parameters"] > 1.5 * zero3["parameters"]
    totals = [sum(tensors[name] for name in CATEGORIES) for tensors in (ddp, zero1, zero2, zero3)]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > 1.7 * totals[3]


@pytest.mark.parametrize("strategy", SPREAD)
def test_what_a_worker_holds_equals_its_formula(resnet50: dict[str, Found], strategy: str) -> None:
    held, tensors, _, said = resnet50[strategy]
    assert held == {"parameters": said["parameters"], "gradients": said["gradients"], "optimizer": said["optimizer state"]}
    assert tensors["optimizer"] == said["optimizer state"]
    assert tensors[AT_UPDATE] == said["gradients"]
    assert tensors[MOST_SAVED] == said["activations"]


def test_the_peak_of_parameters_is_what_is_gathered_beside_the_shard(resnet50: dict[str, Found]) -> None:
    whole, units, _ = sizes()
    assert resnet50["ddp"].tensors["parameters"] == resnet50["zero1"].tensors["parameters"] == whole
    # zero2: the shard, and all parameters less the blocks that the backward pass is through with, last ones first
    freed = whole // WORKERS + whole - resnet50["zero2"].tensors["parameters"]
    assert freed in [sum(units[place:]) for place in range(len(units) + 1)]
    # zero3: the shard, the root's own parameters, and the block that computes, with the one that is fetched ahead or not
    gathered = resnet50["zero3"].tensors["parameters"] - whole // WORKERS - (whole - sum(units))
    assert gathered in [0, *units, *(a + b for a, b in pairwise(units))]


def test_the_peak_of_gradients_is_what_is_not_reduced_yet(resnet50: dict[str, Found]) -> None:
    whole, units, tensors = sizes()
    for strategy in (
        "ddp",
        "zero1",
    ):  # buckets, of which gradients are views; one that autograd has made goes into its bucket next
        assert resnet50[strategy].tensors["gradients"] - whole in [0, *tensors]
    root = whole - sum(units)
    for strategy in (
        "zero2",
        "zero3",
    ):  # shards of blocks that are done, whole gradients of the root and of the block that computes
        assert resnet50[strategy].tensors["gradients"] <= sum(units) // WORKERS + root + max(units)


def sizes() -> tuple[int, list[int], list[int]]:
    """Bytes of resnet50's parameters: all, of each block that is gathered as one, of each tensor."""
    model = torchvision.models.resnet50(num_classes=4)
    tensors = [p.nbytes for p in model.parameters()]
    return sum(tensors), [sum(p.nbytes for p in block.parameters()) for block in blocks(model)], tensors


def test_the_process_grows_by_at_least_its_tensors(resnet50: dict[str, Found]) -> None:
    """The resident set holds allocator slack, kernels' workspaces and buffers of gloo besides."""
    for found in resnet50.values():
        assert found.resident > 0.9 * sum(found.tensors[name] for name in CATEGORIES)


def look(pool: Pool, out: Path, **values: Any) -> tuple[Memory, Tensors, dict[str, int]]:
    """(memory, tensors at the peak) of a small training's record, and the formulas."""
    memory = completed(pool, out, **values, probe_steps=1).memory_bytes
    assert memory.tensors is not None
    return memory, memory.tensors, said(pool, out, **values)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("strategy", EVERY)
def test_activations_by_formula_are_those_of_a_step(pool: Pool, tmp_path: Path, strategy: str, accumulate: int) -> None:
    pipe = STRATEGIES[strategy].axis == "pipe"
    values = {
        "strategy": strategy,
        "workers": 1 if strategy == "single" else 2,
        "accumulate": accumulate,
        "model_args": {"width": 16},
    }
    _, tensors, formulas = look(pool, tmp_path, **values, **({"split": "4"} if pipe else {}))
    assert tensors.most_activations == pytest.approx(formulas["activations"], rel=0.02)


@pytest.mark.parametrize(
    "values", [{"recompute": True}, {"batch_norm": "sync"}, {"precision": "bf16"}, {"optimizer": "adamw"}], ids=str
)
def test_options_change_what_is_held_as_the_formulas_say(pool: Pool, tmp_path: Path, values: dict[str, Any]) -> None:
    memory, tensors, formulas = look(pool, tmp_path, strategy="zero3", workers=2, model_args={"width": 16}, **values)
    assert tensors.most_activations == pytest.approx(formulas["activations"], rel=0.02)
    assert (memory.parameters, memory.optimizer) == (formulas["parameters"], formulas["optimizer state"])
    assert tensors.optimizer == formulas["optimizer state"]


def test_looking_at_memory_never_trains(pool: Pool, tmp_path: Path) -> None:
    values = {"epochs": 2, "optimizer": "adamw", "lr": 0.01}
    plain, probed = completed(pool, tmp_path, **values), completed(pool, tmp_path, **values, probe_steps=1)
    assert probed.losses == plain.losses
    assert equal(final(tmp_path, probed), final(tmp_path, plain))
    assert (plain.memory_bytes.tensors, probed.memory_bytes.tensors is None) == (None, False)
