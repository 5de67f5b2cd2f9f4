"""timeline.json: written whole, read back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.record.timeline import FILE, Event, Lane, Timeline, read, write

SOME = Timeline(
    schedule="1f1b", workers=2, stages=2, micro_batches=4, micro_batch=16, clock_error=0.0,
    steps=[[Lane(rank=0, place=0, replica=0, events=[
        Event(kind="forward", stage=0, micro_batch=0, start=0.0, end=0.5), Event(kind="wait", start=0.5, end=0.75),
    ])]],
)  # fmt: skip


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, SOME)
    assert read(tmp_path) == SOME
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_none_where_nothing_was_recorded(tmp_path: Path) -> None:
    assert read(tmp_path) is None


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"schedule": 1}')
    with pytest.raises(ScalelabError, match=r"timeline\.json: cannot be read as a timeline"):
        read(tmp_path)


def test_waits_and_updates_are_no_chunks() -> None:
    assert [event.kind for event in SOME.steps[0][0].chunks] == ["forward"]
