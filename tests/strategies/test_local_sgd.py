"""local-sgd: against torchft and the formulas, against ddp where the two are equal, and what a run with it leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from scalelab import optim
from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.spec import Spec
from tests.strategies.local_ranks import CASES, STEPS, batch, model
from tests.trainings import completed, equal, final, largest_difference, scores, train

OnRanks = Callable[[str, int], Path]


@pytest.fixture
def on_ranks(pool: Pool, tmp_path: Path) -> OnRanks:
    """``on_ranks("function", n)``: call it on n ranks; the folder they worked in. A rank's failed assertion fails the test."""

    def run(function: str, size: int) -> Path:
        logs = [tmp_path / f"{function}-{rank}.txt" for rank in range(size)]
        target, env = f"tests.strategies.local_ranks:{function}", {"GLOO_SOCKET_IFNAME": "lo", "WORK": str(tmp_path)}
        processes = [pool.start(target, [str(tmp_path / "store"), str(r), str(size)], env, log) for r, log in enumerate(logs)]
        statuses = [pool.wait(process) for process in processes]
        assert statuses == [0] * size, "\n".join(log.read_text() for log in logs)
        return tmp_path

    return run


@pytest.mark.parametrize("size", [2, 3])
def test_it_is_the_papers(on_ranks: OnRanks, size: int) -> None:
    folder = on_ranks("trained", size)
    for rank in range(size):
        found = load_file(folder / f"trained-{size}-{rank}.safetensors")
        for case, spec in CASES.items():
            for name, value in simulated(spec, size)[rank].items():
                torch.testing.assert_close(found[f"{case}/{name}"], value, rtol=1e-12, atol=1e-12)


def simulated(spec: Spec, size: int) -> list[dict[str, Tensor]]:
    """All replicas in one process, written out from the papers: local steps, and every H steps an outer SGD with torch's own Nesterov."""
    replicas = [model() for _ in range(size)]
    inner = [optim.build(spec, replica.parameters()) for replica in replicas]
    common = model()
    outer = torch.optim.SGD(common.parameters(), lr=spec.outer_lr, momentum=spec.outer_momentum, nesterov=spec.outer_momentum > 0)
    for step in range(STEPS):
        for rank, (replica, optimizer) in enumerate(zip(replicas, inner, strict=True)):
            images, labels = batch(step, rank)
            optimizer.zero_grad()
            nn.functional.cross_entropy(replica(images), labels).backward()
            optimizer.step()
        if (step + 1) % spec.sync_every == 0:
            for shared, *theirs in zip(common.parameters(), *(replica.parameters() for replica in replicas), strict=True):
                shared.grad = torch.stack([shared.detach() - mine.detach() for mine in theirs]).mean(0)
            outer.step()
            for replica in replicas:
                replica.load_state_dict(common.state_dict())
    return [{name: value.detach() for name, value in replica.named_parameters()} for replica in replicas]


@pytest.mark.parametrize("case", CASES)
def test_it_is_torchfts(on_ranks: OnRanks, case: str) -> None:
    pytest.importorskip(
        "torchft", reason="torchft has wheels for Linux on x86-64 only; the formulas written out are tested everywhere"
    )
    found = load_file(on_ranks("trained", 2) / "trained-2-1.safetensors")
    for name, value in by_torchft(CASES[case], 2)[1].items():
        torch.testing.assert_close(found[f"{case}/{name}"], value, rtol=1e-12, atol=1e-12)


class Meeting:
    """What torchft's classes ask of its Manager, among threads of this process: the mean over the replicas. No lighthouse, no failures."""

    _use_async_quorum = False

    def __init__(self, size: int) -> None:
        self.barrier, self.brought = threading.Barrier(size), dict[int, Tensor]()

    def allreduce(self, tensor: Tensor, should_quantize: bool = False) -> Any:
        """The mean, in place."""
        self.brought[threading.get_ident()] = tensor.clone()
        self.barrier.wait(30)
        mean = torch.stack(list(self.brought.values())).mean(0)
        self.barrier.wait(30)
        tensor.copy_(mean)
        done: torch.futures.Future[None] = torch.futures.Future()
        done.set_result(None)
        return done

    def should_commit(self) -> bool:
        """Nothing fails here."""
        return True

    def current_step(self) -> int:
        """There is one fragment, whatever the step."""
        return 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Everything about quorums and recovery."""
        return lambda *_: None


def by_torchft(spec: Spec, size: int) -> list[dict[str, Tensor]]:
    """The replicas' parameters after all steps with torchft's LocalSGD or DiLoCo, each replica a thread."""
    from torchft.local_sgd import DiLoCo, LocalSGD

    meeting, results = Meeting(size), dict[int, dict[str, Tensor]]()
    replicas = [model() for _ in range(size)]

    def replica(rank: int) -> None:
        mine = replicas[rank]
        inner = optim.build(spec, mine.parameters())
        if (spec.outer_lr, spec.outer_momentum) == (1.0, 0.0):
            around: Any = LocalSGD(meeting, mine, inner, spec.sync_every)
        else:
            outer = torch.optim.SGD(
                mine.parameters(), lr=spec.outer_lr, momentum=spec.outer_momentum, nesterov=spec.outer_momentum > 0
            )
            around = DiLoCo(meeting, [mine], inner, outer, spec.sync_every)
        with around:
            for step in range(STEPS):
                images, labels = batch(step, rank)
                inner.zero_grad()
                nn.functional.cross_entropy(mine(images), labels).backward()
                inner.step()
        results[rank] = {name: value.detach() for name, value in mine.named_parameters()}

    threads = [threading.Thread(target=replica, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [results[rank] for rank in range(size)]


@pytest.mark.parametrize(
    "function",
    ["probes_leave_no_trace", "silent_probes_do_not_shrink_the_weights", "slots_that_only_one_rank_has_become_all_ranks"],
)
def test_on_ranks(on_ranks: OnRanks, function: str) -> None:
    on_ranks(function, 2)


ALIKE: list[dict[str, Any]] = [
    {"workers": 3, "accumulate": 2},
    {"workers": 2, "momentum": 0.0, "batch_norm": "local"},
    {"workers": 2, "shares": "2:1"},
    {"workers": 2, "shares": "2:1", "batch_norm": "local", "accumulate": 2},
]


@pytest.mark.parametrize("values", ALIKE, ids=str)
def test_averaged_after_each_step_it_is_ddp(pool: Pool, tmp_path: Path, values: dict[str, Any]) -> None:
    """For SGD: momentum and weight decay are linear, so each rank's own momentum has ddp's as its mean."""
    values = {"epochs": 2, "precision": "fp64", "batch_norm": "sync", "weight_decay": 0.01, **values}
    ddp = completed(pool, tmp_path, strategy="ddp", **values)
    local = completed(pool, tmp_path, strategy="local-sgd", sync_every=1, **values)
    assert local.losses == pytest.approx(ddp.losses, rel=1e-11)
    assert largest_difference(final(tmp_path, local), final(tmp_path, ddp)) < 1e-12  # the momentum too, which `unite` averaged
    apart = completed(pool, tmp_path, strategy="local-sgd", sync_every=2, **values)
    assert apart.losses[2] != pytest.approx(ddp.losses[2], rel=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_diloco_resumes_to_the_bit(pool: Pool, tmp_path: Path, optimizer: str) -> None:
    """H = 3 in epochs of 4 steps: the end of an epoch synchronises early, and the outer momentum goes on."""
    values = {
        "strategy": "local-sgd", "workers": 2, "sync_every": 3, "outer_lr": 0.7, "outer_momentum": 0.9, "optimizer": optimizer,
        "lr": 0.01, "epochs": 3,
    }  # fmt: skip
    whole = completed(pool, tmp_path / "whole", **values)
    first = completed(pool, tmp_path / "parts", **values, stop_after_epoch=1)
    second = completed(pool, tmp_path / "parts", resume=tmp_path / "parts" / first.run)
    assert second.losses == whole.losses
    assert scores(second) == scores(whole)
    held = final(tmp_path / "whole", whole)
    assert equal(final(tmp_path / "parts", second), held)
    assert sum(name.startswith("outer/") for name in held) == sum(name.endswith(("weight", "bias")) for name in held) / 2
    assert not [note for note in whole.notes if "differ" in note]


def test_a_run_of_local_sgd_resumes_under_ddp_and_back(pool: Pool, tmp_path: Path) -> None:
    values = {"workers": 2, "epochs": 3, "sync_every": 1, "precision": "fp64"}
    whole = completed(pool, tmp_path / "whole", strategy="ddp", **{k: v for k, v in values.items() if k != "sync_every"})
    first = completed(pool, tmp_path / "parts", strategy="local-sgd", **values, stop_after_epoch=1)
    folder = tmp_path / "parts" / first.run
    completed(pool, tmp_path / "parts", resume=folder, strategy="ddp", sync_every=10, stop_after_epoch=2)
    last = completed(pool, tmp_path / "parts", resume=folder, strategy="local-sgd", sync_every=1, outer_momentum=0.0, epochs=3)
    assert last.losses[:4] == pytest.approx(whole.losses[:4], rel=1e-11)
    assert last.losses == pytest.approx(whole.losses, rel=1e-9)


def test_its_bytes_are_those_of_an_all_reduce_shared_by_its_steps(pool: Pool, tmp_path: Path) -> None:
    for values in ({}, {"outer_lr": 0.7, "outer_momentum": 0.9}):
        record = completed(pool, tmp_path, strategy="local-sgd", workers=3, sync_every=5, epochs=2, probe_steps=2, **values)
        assert record.model is not None
        assert record.bytes_sent.median == pytest.approx(2 * 2 / 3 * record.model.bytes / 5, abs=1)
        assert record.memory_bytes.optimizer == record.model.bytes * (3 if values else 1)


def test_what_is_only_its_own_is_refused_elsewhere(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match=r"--sync-every 3: --strategy ddp"):
        train(pool, tmp_path, strategy="ddp", workers=2, sync_every=3)
    with pytest.raises(ScalelabError, match=r"--compress fp16: --strategy local-sgd"):
        train(pool, tmp_path, strategy="local-sgd", workers=2, compress="fp16")
