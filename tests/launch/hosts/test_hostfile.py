from __future__ import annotations

import os
from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.hosts.hostfile import hosts_of
from scalelab.launch.hosts.placement import Place


def written(folder: Path, text: str) -> str:
    path = folder / "hosts.txt"
    path.write_text(text)
    return str(path)


def test_a_list_of_hosts_with_slots() -> None:
    assert hosts_of("h1:4,h2:2,me@h3") == (Place("h1", slots=4), Place("h2", slots=2), Place("me@h3"))


def test_ipv6_addresses_stand_in_brackets_or_alone() -> None:
    assert hosts_of("h1:4,[fd00::2]:2,[fd00::3],fd00::4") == (
        Place("h1", slots=4), Place("fd00::2", slots=2), Place("fd00::3"), Place("fd00::4"),
    )  # fmt: skip


def test_every_key_of_a_hostfile(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "# my computers\n\n"
        "desk slots=4 share=3 interface=wg0 python=/opt/env/bin/python port=2222 data-dir=/data/cifar  # the fast one\n"
        "'lap'   data-dir='/my data/it''s' python=\"/opt/my env/bin/python\"\n"
        "[fd00::2]:2\n",
    )
    first = Place("desk", 4, share=3.0, interface="wg0", python="/opt/env/bin/python", port=2222, data_dir="/data/cifar")
    assert hosts_of(path) == (
        first, Place("lap", data_dir="/my data/its", python="/opt/my env/bin/python"), Place("fd00::2", slots=2),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("h1 slot=4", "2: unknown key 'slot' (did you mean 'slots'?); valid: slots, share, interface, python, port, data-dir"),
        ("h1 slots=0", "2: slots '0': expected a number of workers, at least 1"),
        ("h1 slots=two", "2: slots 'two': expected a number"),
        ("h1 share=-1", "2: share '-1': expected a positive number: how much of a batch it takes with all its slots"),
        ("h1 share=nan", "2: share 'nan': expected a positive number"),
        ("h1 port=70000", "2: port '70000': expected 1 to 65535"),
        ("h1 python=", "2: a value is empty"),
        ("h1 python=-c", "2: python '-c': expected the path of an interpreter"),
        ("h1 4", "2: '4' is not KEY=VALUE"),
        ("h1 data-dir='/data", "2: no closing quotation"),
        ("h1 slots=1 slots=2", "2: slots is said twice"),
        ("h1:2 slots=2", "2: slots is said twice"),
        ("-oProxyCommand=x", "2: '-oProxyCommand=x' is no host's name"),
        ("'h1; rm -r'", "2: 'h1; rm -r' is no host's name"),
        ("[h1]:2", "2: [h1] is no IPv6 address"),
        ("a:b:c", "2: 'a:b:c' is neither HOST:SLOTS nor an IPv6 address"),
        ("H0", "2: H0 is there twice, first at "),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ScalelabError) as error:
        hosts_of(written(tmp_path, f"h0\n{line}\n"))
    assert f"hosts.txt:{said}" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("missing/hosts", "there is no such file; nothing runs here instead"),
        ("hosts.txt", "there is no such file"),
        ("hostfile", "there is no such file"),
        ("h1:4,h1:2", "h1 is there twice; say how many workers with slots, as in h1:2"),
        ("h1,,h2", "a host's name is missing"),
        ("", "a host's name is missing"),
        ("h1:4;h2:4", "neither HOST:SLOTS nor an IPv6 address"),
        ("h1:", "slots '': expected a number of workers"),
        ("--hosts,h1", "'--hosts' is no host's name"),
        (".", "is a folder; name a hostfile"),
    ],
)
def test_what_names_no_hosts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScalelabError, match="--hosts") as error:
        hosts_of(text)
    assert said in str(error.value)


def test_a_hostfile_without_a_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match=r"hosts.txt: names no host; a line is as `h1 slots=4`"):
        hosts_of(written(tmp_path, "# later\n"))


def test_a_folder_is_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adir").mkdir()
    with pytest.raises(ScalelabError, match=r"--hosts adir: is a folder; name a hostfile"):
        hosts_of("adir")
    assert hosts_of("adir:2") == (Place("adir", slots=2),)


def test_a_pipe_is_a_hostfile() -> None:
    here, there = os.pipe()
    os.write(there, b"h1 slots=2\nh2\n")
    os.close(there)
    assert hosts_of(f"/dev/fd/{here}") == (Place("h1", slots=2), Place("h2"))
    os.close(here)


def test_a_mark_at_the_beginning_belongs_to_no_name(tmp_path: Path) -> None:
    assert hosts_of(written(tmp_path, "\N{BYTE ORDER MARK}h1 slots=2\n")) == (Place("h1", slots=2),)
