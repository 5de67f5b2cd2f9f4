"""A measured number with its doubt, and how the records keep to what JSON can say."""

from __future__ import annotations

import math

import msgspec

force = msgspec.structs.force_setattr


def drop_non_finite(value: msgspec.Struct, *names: str) -> None:
    """JSON has no NaN and no infinity: msgspec writes null for them, so null, None, is what they are from the start."""
    for name in names:
        number = getattr(value, name)
        if number is not None and not math.isfinite(number):
            force(value, name, None)


def require_finite(value: msgspec.Struct, *names: str) -> None:
    """What is always finite, such as a time: null could not be read back, so it is never written."""
    for name in names:
        if not math.isfinite(getattr(value, name)):
            raise ValueError(f"{type(value).__name__}.{name} is {getattr(value, name)}: not a finite number")


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A measured number with its n, spread and 95 % interval; absent (median None) with its reason."""

    unit: str
    median: float | None = None
    n: int = 0
    mad: float | None = None
    """median absolute deviation, scaled by 1.4826 so that it equals a normal's standard deviation"""
    ci95: tuple[float, float] | None = None
    """95 % bootstrap interval of the median; None when n is too small for one"""
    reason: str | None = None
    """why the figure is absent, or what to know before trusting it"""

    def __post_init__(self) -> None:
        if self.ci95 is not None and not all(map(math.isfinite, self.ci95)):
            force(self, "ci95", None)
        if self.median is not None and not math.isfinite(self.median):
            force(self, "reason", self.reason or f"it came out as {self.median}")
        drop_non_finite(self, "median", "mad")
