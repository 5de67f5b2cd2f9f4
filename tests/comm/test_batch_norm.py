"""Batch norm over the global batch, and its serial twin."""

from __future__ import annotations

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from scalelab.comm import batch_norm
from scalelab.errors import ScalelabError
from tests.comm.conftest import OnRanks


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sync_is_exact_with_uneven_shares(on_ranks: OnRanks, size: int) -> None:
    on_ranks("sync_batch_norm_is_exact", size)


@pytest.mark.parametrize("size", [1, 3])
def test_buffers_are_averaged_but_not_counters(on_ranks: OnRanks, size: int) -> None:
    on_ranks("buffers_are_averaged", size)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_per_replica_normalises_each_slice_by_itself(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4).double() * torch.arange(1, 7).view(6, 1, 1, 1)
    whole = batch_norm.per_replica(kind(3).double().train(), (1, 1, 1))
    workers = [kind(3).double().train() for _ in range(3)]
    out = whole(x)
    torch.testing.assert_close(out, torch.cat([worker(part) for worker, part in zip(workers, x.chunk(3), strict=True)]))
    for name, buffer in whole.named_buffers():
        mean = torch.stack([dict(worker.named_buffers())[name].double() for worker in workers]).mean(0)
        torch.testing.assert_close(buffer.double(), mean)


def test_parameters_keep_their_names() -> None:
    plain, sliced = nn.Sequential(nn.BatchNorm2d(3)), batch_norm.per_replica(nn.Sequential(nn.BatchNorm2d(3)), (1, 1))
    assert plain.state_dict().keys() == sliced.state_dict().keys()


class Special(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize("norm", [Special(3), nn.SyncBatchNorm(3)])
def test_an_unknown_class_is_refused(norm: nn.Module) -> None:
    with pytest.raises(ScalelabError, match="cannot be synchronised; use --batch-norm local"):
        batch_norm.check(nn.Sequential(norm))
