"""Computers that are not alike in one training."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.over import completed, train

CORES = len(os.sched_getaffinity(0))
MODEL = """\
import os, pathlib, time
import torch
from torch import nn

class Slow(nn.Module):
    def forward(self, x):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return x

def build(num_classes, width):
    if "RANK" in os.environ:
        (pathlib.Path(__file__).parent / f"threads-{os.environ['RANK']}").write_text(str(torch.get_num_threads()))
    return nn.Sequential(nn.Flatten(), Slow(), nn.Linear(192, num_classes))
"""
LIMITED = """\
#!/bin/sh
SLOW=0.5 exec taskset -c 0 {python} "$@"
"""


def test_a_slow_host_with_fewer_cores_gets_the_smaller_share_of_each_batch(cluster: Cluster) -> None:
    """h2 has one core, by taskset in its python=, and takes half a second longer for each forward pass."""
    here = cluster.folder / "different"
    here.mkdir()
    (here / "m.py").write_text(MODEL)
    limited = here / "limited"
    limited.write_text(LIMITED.format(python=sys.executable))
    limited.chmod(0o755)
    (here / "hosts.txt").write_text(f"h1\nh2 python={limited}\n")
    record = completed(cluster.h0, here, "--hosts", "hosts.txt", "--model", "m.py:build", "--shares", "measured", "--steps", 2)
    first, second = record.derived.shares
    assert first > second >= 1
    assert first + second == 16
    mine, other = record.environment.hosts
    assert (other.cores, other.workers, mine.workers) == (1, 1, 1)
    assert mine.cores > 1
    assert [(here / f"threads-{rank}").read_text() for rank in "01"] == [str(mine.cores), "1"]


def test_a_share_of_a_hostfile_is_a_part_of_the_batch_and_a_crowded_host_is_told(cluster: Cluster, tmp_path: Path) -> None:
    """h1 takes three times as much as each worker of h2, which has one more of them than cores."""
    (tmp_path / "hosts.txt").write_text(f"h1 share=3\nh2 slots={CORES + 1}\n")
    shown = train(cluster.h0, tmp_path, "--hosts", "hosts.txt", "--dry-run", "--batch", 2 * (3 + CORES + 1))
    assert f"micro-batches of 6{' + 2' * (CORES + 1)} x accumulate 1" in shown.stderr
    assert "oversubscribed: more threads than cores" in shown.stderr
