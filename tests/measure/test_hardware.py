"""What /sys says of caches and links."""

from __future__ import annotations

from pathlib import Path

from scalelab.measure.hardware import cache_bytes, links


def test_the_largest_cache_is_taken(tmp_path: Path) -> None:
    for number, size in enumerate(("48K\n", "32K\n", "2048K\n", "33M\n", "none\n")):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(size)
    assert cache_bytes(tmp_path) == 33 << 20
    assert cache_bytes(tmp_path / "nothing") == 0


def test_links_that_tell_their_speed_are_known(tmp_path: Path) -> None:
    for name, speed in (("eth0", "10000\n"), ("wlan0", "-1\n"), ("lo", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "speed").write_text(speed)
    assert links(tmp_path) == {"eth0": 1.25e9}
