"""What a device can do at most: pieces of work whose amount is known, done again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from scalelab.measure.clock import clock

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
COPIED = 128 << 20
"""bytes of the copied buffer: more than a processor's caches keep of it (on a GPU eight times as much)"""


@dataclass(frozen=True)
class Work:
    """A piece of work: ``amount`` operations, or bytes, each time ``do`` is called."""

    name: str
    amount: float
    do: Callable[[], object]


def products(device: torch.device, precision: str) -> list[Work]:
    """Matrix products in the type that ``precision`` computes with; on CUDA as large as its many cores want them.

    Several sizes and two libraries, because no one is the fastest everywhere: on an AMD EPYC torch.mm (MKL) reaches 108 GFLOP/s a core,
    a convolution (oneDNN) 257.
    """
    dtype, large = DTYPES[precision], 8 if device.type == "cuda" else 1

    def matrices(n: int) -> Work:
        a, b = torch.randn(2, n, n, device=device).to(dtype)
        out = torch.empty_like(a)
        return Work(f"torch.mm of {n} x {n}", 2.0 * n**3, lambda: torch.mm(a, b, out=out))

    def convolution(channels: int, size: int, images: int) -> Work:
        x = torch.randn(images, channels, size, size, device=device).to(dtype, memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
        amount = 2.0 * 9 * channels**2 * images * size**2
        name = f"3x3 convolution of {channels} channels, {images} images of {size} x {size}"
        return Work(name, amount, lambda: torch.nn.functional.conv2d(x, weight, padding=1))

    return [matrices(512 * large), matrices(1024 * large), convolution(64, 32, 8 * large), convolution(256, 8, 16 * large**2)]


def copy(device: torch.device) -> Work:
    """A copy within the device's memory."""
    source = torch.ones(COPIED * (8 if device.type == "cuda" else 1), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Work("copy", 2.0 * source.nbytes, lambda: target.copy_(source))


def fastest(works: list[Work], device: torch.device, seconds: float) -> Work:
    """The one that does most in a second, each tried for ``seconds`` after a first call that is not timed."""

    def rate(work: Work) -> float:
        times = timed(work, device, seconds)
        return work.amount / min(end - start for start, end in pairwise(times))

    return max(works, key=rate)


@torch.no_grad()
def timed(work: Work, device: torch.device, seconds: float) -> list[float]:
    """Do it for ``seconds``, at least three times: when it began and when each was done, in seconds of the host's monotonic clock.

    That clock is one for all processes of a host.
    """
    now = clock(device)
    work.do()
    times = [now() / 1e9]
    end = times[0] + seconds
    while times[-1] < end or len(times) < 4:
        work.do()
        times.append(now() / 1e9)
    return times


def name(device: torch.device) -> str:
    """``cpu``, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
