"""What becomes of the doctor's questions where something does not answer."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalelab.doctor import slurm
from scalelab.doctor.asking import Place, Questions, gather
from scalelab.doctor.diagnosing import token
from scalelab.doctor.there.answers import ANSWERS
from scalelab.errors import RunError, ScalelabError


def host(name: str, lost_at: str | None = None) -> Place:
    """This machine by another name, which is lost when it is asked for ``lost_at``."""

    def ask(what: str, question: dict[str, Any]) -> Any:
        if what == lost_at:
            raise RunError(f"{name}: its line closed")
        known = {"programs": {}, "ssh": dict.fromkeys(question.get("hosts", []))}
        return known[what] if what in known else ANSWERS[what](question)

    return Place(name, ask)


@pytest.mark.parametrize("question", ["machine", "programs"])
def test_a_host_that_is_lost_before_it_has_told_all_is_unreachable_and_the_others_are_told_of(question: str) -> None:
    told, links = gather([host("a"), host("b", lost_at=question)], Questions())
    assert [one.unreachable for one in told] == [None, "b: its line closed"]
    assert told[0].machine["cores"]
    assert not links


@pytest.mark.parametrize("question", ["serve", "connect", "ssh"])
def test_a_host_that_is_lost_in_the_middle_is_a_fault_of_its_own(question: str) -> None:
    told, _ = gather([host("a", lost_at=question), host("b")], Questions())
    assert [one.unreachable for one in told] == [None, None]
    assert "a: its line closed" in (*told[0].closed.values(), *told[0].logins.values())


def test_who_is_interrupted_waits_for_no_answer() -> None:
    asked, released, answered = threading.Event(), threading.Event(), threading.Event()

    def slow(what: str, question: dict[str, Any]) -> Any:
        asked.set()
        released.wait(60)
        answered.set()
        raise RunError("b: its line closed")

    def interrupted(what: str, question: dict[str, Any]) -> Any:
        assert asked.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gather([Place("a", interrupted), Place("b", slow)], Questions())
    assert not answered.is_set()
    released.set()


@pytest.mark.parametrize("names", ["a", "ab"])
def test_the_meeting_port_has_to_be_free_on_the_first_host_alone(names: str) -> None:
    asked = dict[str, Any]()

    def known(place: Place) -> Place:
        def ask(what: str, question: dict[str, Any]) -> Any:
            asked.update({place.name: question["port"]} if what == "serve" else {})
            assert place.ask is not None
            return place.ask(what, question)

        return replace(place, ask=ask)

    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        told, _ = gather([known(host(name)) for name in names], Questions(port=port))
    assert asked == {name: port if name == "a" else None for name in names}
    assert {one.name: one.closed for one in told if one.closed} == {"a": {"a": f"port {port} is in use"}}


@pytest.mark.parametrize("there", [True, False])
def test_a_temporary_folder_that_is_not_there_has_no_room(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path if there else tmp_path / "gone"))
    told = ANSWERS["machine"]({})
    assert told["scratch"] == os.environ["TMPDIR"]
    assert (told["scratch_free"] is not None) == there


def test_a_folder_that_was_made_to_try_it_is_gone_also_where_it_can_not_be_written(tmp_path: Path) -> None:
    with token(str(tmp_path / "a" / "b")) as (path, inode):
        assert os.stat(path).st_ino == inode
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "x", tmp_path / "c" / ("n" * 300)):
        with pytest.raises(ScalelabError, match=r"--out .*: cannot be written: "), token(str(out)):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_accounting_lets_this_user_submit_is_asked_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sacctmgr").write_text('#!/bin/sh\nfor word; do [ "$word" = user=ada ] && echo 7; done\nexit 0\n')
    (tmp_path / "sacctmgr").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("LOGNAME", "ada")
    assert slurm._limits(None) == "7"
