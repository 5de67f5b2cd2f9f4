"""What a worker uses at a moment: its process, its network interface, its GPU. Read from the system, not from torch's books."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from scalelab.measure.interfaces import INTERFACES, leading_to
from scalelab.record.schema import Sample

NO_GPU = "this worker computes on no GPU"
NO_NVML = "NVML does not tell: `pip install nvidia-ml-py` brings it; a slice of a GPU has no figures of its own"
ALONE = "one worker: nothing is sent"
NO_INTERFACE = "the interface that the rendezvous uses is not known here"
METHOD = (
    "sampled by one thread of each worker, from the start of the training to its end, evaluation included; n: blocks of 10 samples. "
    "cpu_percent: CPU time of the process in per cent of one core; resident_bytes: its resident memory; network: bytes that passed the "
    "rendezvous' interface, all processes of the host and headers included; gpu_percent: share of the time in which a kernel ran, "
    "power_watts: of the whole board (NVML); gpu_memory_bytes: in use on the device, by whatever process"
)


def interface(address: str) -> str | None:
    """The network interface of this host that leads to ``address``; the one that gloo or NCCL is told to use where they are."""
    for told in INTERFACES:
        name = os.environ.get(told, "").lstrip("=^").split(",")[0]
        if name in psutil.net_if_addrs():
            return name
    return leading_to(address)


@dataclass
class Reader:
    """Reads one worker's counters; what they count is told as a rate since the last reading."""

    device: torch.device
    network: str | None

    def __post_init__(self) -> None:
        self.process = psutil.Process()
        self.gpu = _gpu(self.device)
        self.last = self._counters()

    def since(self) -> float:
        """Seconds since the last reading."""
        return time.perf_counter() - self.last[0]

    def sample(self, rank: int) -> Sample:
        """Everything since the last call, or since this was made."""
        before, after = self.last, self._counters()
        self.last = after
        seconds = max(after[0] - before[0], 1e-6)
        with self.process.oneshot():
            resident, threads = self.process.memory_info().rss, self.process.num_threads()
        rest: dict[str, Any] = self.gpu()
        return Sample(
            at=time.time(), rank=rank, cpu_percent=round(100 * (after[1] - before[1]) / seconds, 1),
            threads=threads, resident_bytes=resident,
            sent_per_second=_rate(before[2], after[2], seconds), received_per_second=_rate(before[3], after[3], seconds), **rest,
        )  # fmt: skip

    def _counters(self) -> tuple[float, float, int | None, int | None]:
        """(moment, CPU seconds, bytes sent, bytes received)."""
        times = self.process.cpu_times()
        passed = psutil.net_io_counters(pernic=True).get(self.network) if self.network else None
        sent, received = (passed.bytes_sent, passed.bytes_recv) if passed else (None, None)
        return time.perf_counter(), times.user + times.system, sent, received


def _rate(before: int | None, after: int | None, seconds: float) -> int | None:
    return None if before is None or after is None else round((after - before) / seconds)


def _gpu(device: torch.device) -> Callable[[], dict[str, float]]:
    """A function that reads this worker's GPU: nothing without one, its memory only without NVML."""
    if device.type != "cuda":
        return dict

    def memory() -> dict[str, float]:
        free, total = torch.cuda.mem_get_info(device)
        return {"gpu_memory_bytes": total - free}

    def everything() -> dict[str, float]:
        watts = torch.cuda.power_draw(device) / 1000  # torch gives milliwatts
        return {**memory(), "gpu_percent": torch.cuda.utilization(device), "power_watts": watts}

    try:
        everything()
    except Exception:  # no NVML package, no library, or a GPU that does not tell (MIG)
        return memory
    return everything
