"""Memory of this process: the peak since a mark, as the system (CPU) or torch's allocator (CUDA) counts it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
import torch

from scalelab.limits import available_bytes

METHOD = {
    "cpu": "peak resident memory of each worker process (VmHWM, reset when the training starts), libraries and data included",
    "cuda": "peak of torch.cuda.max_memory_allocated of each worker",
}


def mark(device: torch.device) -> int:
    """Begin a new peak; the bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    with contextlib.suppress(OSError):  # the peak then includes the start, which only makes it larger
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size
    return int(psutil.Process().memory_info().rss)


def available(device: torch.device) -> int:
    """Bytes that a further process could take now."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_bytes()


def left(device: torch.device, sharing: int) -> int:
    """Bytes that this process could still take where ``sharing`` like it share a host's memory; a GPU is its own, with what torch keeps."""
    if device.type != "cuda":
        return available(device) // sharing
    return available(device) + int(torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def peak(device: torch.device) -> int | None:
    """The largest number of bytes in use since ``mark``; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if kib is None else int(kib) * 1024
