"""Numbers and names as a reader sees them: the same digits on the page, in Markdown and in a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scalelab.record.schema import Figure

ABSENT = "–"


PREFIXES = ("", "k", "M", "G", "T", "P")


def number(value: float, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and thin grouping: ``1,280``, ``0.0123``, ``2.1e-13``."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude > 8:
        return f"{value:.{max(digits - 2, 0)}e}"
    rounded = round(value, digits - 1 - magnitude)
    magnitude = math.floor(math.log10(abs(rounded)))  # 9.999 has become 10.0
    return f"{rounded:,.{max(digits - 1 - magnitude, 0)}f}"


def counted(number: int, what: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number} {what}{'s' * (number != 1)}"


def rate(value: float) -> str:
    """Images per second."""
    return number(value, 4 if abs(value) >= 1000 else 3)


def times(value: float) -> str:
    """A ratio: ``1.62×``."""
    return f"{number(value)}×"


def percent(value: float) -> str:
    """A fraction as per cent, one decimal: ``93.4 %``."""
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    """A difference of fractions in percentage points, without the unit: ``-12.1``."""
    return f"{round(100 * value, 1) + 0.0:.1f}"  # never "-0.0"


def whole_percent(value: float) -> str:
    """A fraction as per cent, no decimals: ``81 %``."""
    return f"{round(100 * value) + 0} %"  # never "-0 %"


def seconds(value: float) -> str:
    """A duration in the unit that suits it: ``340 µs``, ``12.1 ms``, ``3.20 s``, ``4 min 10 s``."""
    size = abs(value)
    if size < 1e-3:
        return f"{number(value * 1e6)} µs"
    if size < 1:
        return f"{number(value * 1e3)} ms"
    if size < 100:
        return f"{number(value)} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def about(value: float) -> str:
    """A duration that is only estimated: whole seconds, ``38 s``, ``4 min 10 s``."""
    whole = max(1, round(value))
    return f"{whole} s" if whole < 100 else seconds(float(whole))


def size(value: float) -> str:
    """Bytes in binary units: ``312 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1000:
            return f"{number(value)} {unit}"
        value /= 1024
    return f"{number(value)} TiB"


Show = Callable[[float], str]


def prefixed(value: float, unit: str) -> str:
    """``60.3 MFLOP``: three digits and the decimal prefix of ``unit``."""
    power = min(max(math.floor(math.log10(abs(value)) / 3), 0), len(PREFIXES) - 1) if value else 0
    return f"{number(value / 1000**power)} {PREFIXES[power]}{unit}"


def shown(figure: Figure, show: Show) -> str:
    """The median, or the dash of an absent figure."""
    return ABSENT if figure.median is None else show(figure.median)


def interval(figure: Figure, show: Show) -> str:
    """``1.55–1.70×``, ``-50.5 to 85.5 ms``: the 95 % interval with its unit written once; empty when there is none."""
    if figure.median is None or figure.ci95 is None:
        return ""
    low, high = (show(end) for end in figure.ci95)
    tail = _unit(high)
    between = " to " if min(figure.ci95) < 0 else "–"  # a minus after a dash can't be read
    return f"{low.removesuffix(tail) if tail and _unit(low) == tail else low}{between}{high}"


def spread(figure: Figure, show: Show) -> str:
    """``± 12``: the scaled MAD; empty when there is none."""
    return "" if figure.median is None or figure.mad is None else f"± {show(figure.mad)}"


def _unit(text: str) -> str:
    return text.lstrip("-+0123456789.,e")


def listing(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def count(number_of: int) -> str:
    """Small counts in words."""
    return COUNTS[number_of] if number_of < len(COUNTS) else str(number_of)


def plain(text: str) -> str:
    """``text`` for plotly, which reads labels as pseudo-HTML: tags stay text, and lines become one line."""
    one_line = " ".join(text.split())
    return one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def shorten(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters, cut in the middle: both ends tell runs apart."""
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


HIDDEN = {
    code: None
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}
"""characters that move the cursor, set the title, clear the screen or reverse what is read: none is ever part of a name or an error"""


def harmless(text: str) -> str:
    """``text``, which may come from another's record or model, without what a terminal or a page would obey."""
    return text.translate(HIDDEN)
