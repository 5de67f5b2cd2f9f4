"""Random bits as a function of numbers (splitmix64, Steele et al. 2014), not of how often someone asked before."""

from __future__ import annotations

from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
EPOCH = 0xD1B54A32D192ED03
MASK = (1 << 64) - 1
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(seed: int, epoch: int) -> int:
    """64 bits of (seed, epoch), not mixed yet; (0, 1) and (1, 0) differ."""
    return (seed * GOLDEN + epoch * EPOCH) & MASK


def mix(value: int) -> int:
    """64 bits, each of which depends on all 64 of ``value``."""
    value = ((value ^ (value >> 30)) * _FIRST) & MASK
    value = ((value ^ (value >> 27)) * _SECOND) & MASK
    return value ^ (value >> 31)


def mix_each(values: Tensor) -> Tensor:
    """``mix`` of each of int64 ``values``, read as 64 bits: products wrap, as the hash wants."""
    values = (values ^ _shift(values, 30)) * signed(_FIRST)
    values = (values ^ _shift(values, 27)) * signed(_SECOND)
    return values ^ _shift(values, 31)


def upper63(values: Tensor) -> Tensor:
    """The upper 63 bits of each of int64 ``values``, as a number that is never negative."""
    return _shift(values, 1)


def signed(value: int) -> int:
    """The same 64 bits as torch's int64 reads them."""
    return value - (1 << 64) if value >> 63 else value


def _shift(values: Tensor, count: int) -> Tensor:
    """Logical shift to the right: torch's own repeats the sign."""
    return (values >> count) & ((1 << (64 - count)) - 1)
