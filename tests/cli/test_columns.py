"""Rows as lines: what stays whole however narrow the terminal is."""

from __future__ import annotations

from scalelab.cli.columns import lines

TITLES = ("run", "job", "reason", "left", "nodes")
FOLDER = "runs/20261121T214117Z-basic_cnn-ddp-ca301f"
WHY = "ReqNodeNotAvail, UnavailableNodes:h1,h2,h3; after: preempted"
LEAST = {"reason": 12, "nodes": 6}


def test_where_there_is_room_a_row_is_a_line() -> None:
    found = lines(TITLES, [(FOLDER, "12", WHY, "", "h[1-2]")], 160, LEAST)
    assert found == [
        f"{'run':42}  job  {'reason':60}  nodes",
        f"{FOLDER}  12   {WHY}  h[1-2]",
    ]  # fmt: skip


def test_the_reason_gives_way_before_the_folder() -> None:
    found = lines(TITLES, [(FOLDER, "12", WHY, "", "h[1-2]")], 100, LEAST)
    assert max(map(len, found)) <= 100
    assert found[1].startswith(f"{FOLDER}  12   ReqNodeNotAvail,")
    assert found[1].endswith("h[1-2]")
    assert len(found) == 3


def test_a_folder_is_whole_on_a_line_of_its_own() -> None:
    for width in (20, 40, 60):
        found = lines(TITLES, [(FOLDER, "12", WHY, "", "h[1-2]"), (FOLDER + "2", "13", "", "", "")], width, LEAST)
        assert FOLDER in found
        assert FOLDER + "2" in found
    assert max(map(len, lines(TITLES, [(FOLDER, "12", WHY, "", "h[1-2]")], 60, LEAST))) <= 60
