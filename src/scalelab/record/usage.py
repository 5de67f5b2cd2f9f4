"""What workers used, and what their machine can do at most."""

from __future__ import annotations

import msgspec

from scalelab.record.figure import Figure, drop_non_finite, require_finite


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one worker used since its last sample: a line of resources/rank-N.jsonl. ``at``: seconds since 1970, UTC."""

    at: float
    rank: int
    cpu_percent: float
    """of one core"""
    threads: int
    resident_bytes: int
    sent_per_second: int | None = None
    """bytes that left by the rendezvous' interface, whoever sent them"""
    received_per_second: int | None = None
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None
    power_watts: float | None = None

    def __post_init__(self) -> None:
        drop_non_finite(self, "gpu_percent", "power_watts")
        require_finite(self, "at", "cpu_percent")


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker used while the training ran: medians over the samples of all workers."""

    sample_seconds: float
    cpu_percent: Figure
    """of one core"""
    resident_bytes: Figure
    sent_bytes_per_second: Figure
    received_bytes_per_second: Figure
    gpu_percent: Figure
    gpu_memory_bytes: Figure
    power_watts: Figure

    def __post_init__(self) -> None:
        require_finite(self, "sample_seconds")


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    """What one of ``workers`` workers can do at most while all compute: the best stretch (``median`` holds it) of n."""

    flops_per_second: Figure
    copy_bytes_per_second: Figure
    """read + written"""
    product: str
    """the matrix product that was the fastest"""
    host: str
    processor: str
    cores: int
    device: str
    threads: int
    """of each worker"""
    workers: int
    precision: str
    torch: str
