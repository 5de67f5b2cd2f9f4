"""Whatever number a run ends with, its record can be read again."""

from __future__ import annotations

import math
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from scalelab.record import schema
from scalelab.record.schema import Cell, Epoch, Figure, Step

KINDS = [
    kind
    for kind in vars(schema).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__.startswith("scalelab.record.")
]
SAMPLES: dict[Any, Any] = {str: "s", int: 1, float: 0.5, bool: True, list: [], dict: {}}


def made(kind: Any, **values: Any) -> Any:
    """A ``kind`` (a record type, or the type of a field) with every required field filled in."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        origin = getattr(kind, "__origin__", kind)
        return SAMPLES[origin] if origin in SAMPLES else get_args(kind)[0] if isinstance(get_args(kind)[0], str) else None
    hints = get_type_hints(kind)
    return kind(**{field.name: made(hints[field.name]) for field in msgspec.structs.fields(kind) if field.required} | values)


FLOATS = [
    (kind, name, hint)
    for kind in KINDS
    for name, hint in get_type_hints(kind).items()
    if "float" in str(hint) and not name.startswith("_")
]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("kind", "name", "hint"), FLOATS, ids=[f"{kind.__name__}.{name}" for kind, name, _ in FLOATS])
def test_a_number_that_is_not_finite_is_refused_or_read_back_as_none(kind: Any, name: str, hint: Any, number: float) -> None:
    """Never written so that the whole record is lost."""
    value: Any = (number, 1.0) if "tuple" in str(hint) else [number] if "list" in str(hint) else number
    if type(None) not in get_args(hint):
        with pytest.raises(ValueError, match=f"{kind.__name__}.{name}"):
            made(kind, **{name: value})
        return
    record = made(kind, **{name: value})
    assert getattr(msgspec.json.decode(msgspec.json.encode(record), type=kind), name) is None


def test_every_kind_of_float_was_tried() -> None:
    tried = {(kind.__name__, name) for kind, name, _ in FLOATS}
    assert {
        ("Figure", "ci95"),
        ("Epoch", "test_loss"),
        ("Step", "loss"),
        ("TrainRecord", "losses"),
        ("Cell", "max_loss_difference"),
    } <= tried


def test_a_figure_that_is_not_finite_is_absent_with_the_reason() -> None:
    figure = Figure(unit="s", median=math.inf, n=3, mad=math.nan, ci95=(1.0, math.inf))
    assert figure == Figure(unit="s", n=3, reason="it came out as inf")


def test_finite_numbers_stay() -> None:
    for record in (made(Epoch), made(Step), made(Cell, max_loss_difference=0.5), Figure(unit="s", median=0.5, ci95=(0.25, 1.0))):
        assert msgspec.json.decode(msgspec.json.encode(record), type=type(record)) == record
