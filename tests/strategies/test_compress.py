"""Compressed gradients: the algorithm, the bytes, what they compose with, what they refuse."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from tests.strategies.compress_ranks import SPEC, STEPS, batch, model
from tests.trainings import completed, equal, final, train

RANK = SPEC.powersgd_rank


def test_powersgd_is_the_papers(pool: Pool, tmp_path: Path) -> None:
    """From the first step, with error feedback and warm start; a rank's parameters after each step against all replicas in one process."""
    logs = [tmp_path / f"{rank}.txt" for rank in range(2)]
    env = {"GLOO_SOCKET_IFNAME": "lo", "WORK": str(tmp_path)}
    target = "tests.strategies.compress_ranks:powersgd"
    processes = [pool.start(target, [str(tmp_path / "store"), str(rank), "2"], env, log) for rank, log in enumerate(logs)]
    assert [pool.wait(process) for process in processes] == [0, 0], "\n".join(log.read_text() for log in logs)
    both = [load_file(tmp_path / f"powersgd-{rank}.safetensors") for rank in range(2)]
    one, memory = model(), dict[str, tuple[list[Tensor], Tensor]]()
    for step in range(STEPS):
        gradients = []
        for rank in range(2):
            images, labels = batch(step, rank)
            one.zero_grad()
            nn.functional.cross_entropy(one(images), labels).backward()
            gradients.append({name: value.grad.clone() for name, value in one.named_parameters()})
        for place, (name, value) in enumerate(one.named_parameters()):
            mean = approximated(name, place, [gradient[name] for gradient in gradients], memory)
            if value.dim() == 4 and name in memory:
                mean = mean.view(value.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
            value.data -= SPEC.lr * mean
            for found in both:
                torch.testing.assert_close(found[f"{step}/{name}"], value.detach().contiguous(), rtol=1e-9, atol=1e-12)
    assert set(memory) == {"0.weight", "4.weight"}


def approximated(name: str, place: int, gradients: list[Tensor], memory: dict[str, tuple[list[Tensor], Tensor]]) -> Tensor:
    """Vogels et al. 2019, algorithm 1 with the error feedback of algorithm 2; the plain mean where a matrix would not halve."""
    if gradients[0].dim() == 1 or 2 * RANK * sum(gradients[0].flatten(1).shape) >= gradients[0].numel():
        return torch.stack(gradients).mean(0)
    matrices = [(g.permute(0, 2, 3, 1) if g.dim() == 4 else g).flatten(1) for g in gradients]  # as they lie in memory
    start = torch.randn(matrices[0].shape[1], RANK, generator=torch.Generator().manual_seed(place), dtype=torch.float64)
    errors, q = memory.get(name, ([torch.zeros_like(m) for m in matrices], torch.linalg.qr(start).Q))
    fed = [m + e for m, e in zip(matrices, errors, strict=True)]
    p = torch.linalg.qr(torch.stack([m @ q for m in fed]).mean(0)).Q
    q = torch.stack([m.T @ p for m in fed]).mean(0)
    memory[name] = [m - p @ q.T for m in fed], q
    return p @ q.T


@pytest.mark.parametrize("compress", ["fp16", "bf16", "powersgd"])
def test_the_bytes_it_saves_and_that_zero1_computes_the_same(pool: Pool, tmp_path: Path, compress: str) -> None:
    """On 3 workers, accumulated twice. The replicas stay equal; what a probe does to the memory of errors leaves no trace."""
    values = {"workers": 3, "compress": compress, "accumulate": 2, "model_args": {"width": 16}, "epochs": 2, "probe_steps": 2}
    ddp = completed(pool, tmp_path, strategy="ddp", **values)
    zero1 = completed(pool, tmp_path, strategy="zero1", **{**values, "probe_steps": 0})
    assert ddp.losses == zero1.losses
    assert equal(final(tmp_path, ddp), final(tmp_path, zero1))
    assert not [note for note in (*ddp.notes, *zero1.notes) if "differ" in note]
    weights = [v for n, v in final(tmp_path, ddp).items() if n.startswith("model/") and n.endswith(("weight", "bias"))]
    sent = sum(w.size * 2 if compress != "powersgd" else thin(w.shape) * 4 for w in weights)
    assert ddp.bytes_sent.median == pytest.approx(2 * 2 / 3 * sent, abs=1)


def thin(shape: tuple[int, ...]) -> int:
    """Numbers sent for a gradient of this shape at the default rank, 4."""
    rows, numbers = shape[0], int(torch.Size(shape).numel())
    compressed = min(4, rows, numbers // rows) * (rows + numbers // rows)
    return compressed if len(shape) > 1 and 2 * compressed < numbers else numbers


@pytest.mark.parametrize(("compress", "least", "most"), [("fp16", 1e-7, 1e-4), ("bf16", 1e-5, 1e-2)])
def test_sixteen_bits_change_the_result_a_little(pool: Pool, tmp_path: Path, compress: str, least: float, most: float) -> None:
    values = {"strategy": "ddp", "workers": 2, "precision": "fp64", "epochs": 1}
    whole, rounded = completed(pool, tmp_path, **values), completed(pool, tmp_path, compress=compress, **values)
    assert rounded.losses[0] == whole.losses[0]
    assert least < abs(rounded.losses[1] / whole.losses[1] - 1) < most


def test_sixteen_bits_resume_to_the_bit(pool: Pool, tmp_path: Path) -> None:
    values = {"strategy": "ddp", "workers": 2, "compress": "bf16", "epochs": 2}
    whole = completed(pool, tmp_path / "whole", **values)
    first = completed(pool, tmp_path / "parts", **values, stop_after_epoch=1)
    second = completed(pool, tmp_path / "parts", resume=tmp_path / "parts" / first.run)
    assert second.losses == whole.losses
    assert equal(final(tmp_path / "parts", second), final(tmp_path / "whole", whole))


def test_a_parameter_that_nothing_uses_stays_as_it_was(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        textwrap.dedent("""
            from torch import nn

            class Odd(nn.Module):
                def __init__(self, classes):
                    super().__init__()
                    self.a, self.out, self.extra = nn.Linear(192, 40), nn.Linear(40, classes), nn.Linear(192, 192)

                def forward(self, x):
                    return self.out(self.a(x.flatten(1)).tanh())

            def build(num_classes):
                return Odd(num_classes)
        """)
    )
    values = {"strategy": "ddp", "workers": 2, "model": f"{tmp_path}/odd.py:build", "model_args": {}, "epochs": 1}
    plain, compressed = completed(pool, tmp_path, **values), completed(pool, tmp_path, compress="powersgd", **values)
    before, after = final(tmp_path, plain), final(tmp_path, compressed)
    assert before["model/extra.weight"].tobytes() == after["model/extra.weight"].tobytes()
    assert before["model/a.weight"].tobytes() != after["model/a.weight"].tobytes()


def test_it_is_refused_where_there_is_no_all_reduce_of_gradients(pool: Pool, tmp_path: Path) -> None:
    for strategy in ("zero2", "zero3", "local-sgd"):
        with pytest.raises(ScalelabError, match=rf"--compress bf16: --strategy {strategy} with torch has no such option"):
            train(pool, tmp_path, strategy=strategy, workers=2, compress="bf16")
    with pytest.raises(ScalelabError, match="--powersgd-rank 8: is of --compress powersgd, which is not asked for"):
        train(pool, tmp_path, strategy="ddp", workers=2, powersgd_rank=8, compress="fp16")
