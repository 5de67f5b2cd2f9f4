from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalelab import spec as specs
from scalelab.errors import ScalelabError
from scalelab.launch.hosts import checks, looking
from scalelab.launch.hosts.checks import Told, Unfit, Wanted
from scalelab.launch.hosts.placement import Place, shares, spread

SPEC = specs.from_mapping({"strategy": "ddp", "workers": 3, "data": "cifar10", "data_dir": "/data"})
WANTED = Wanted(SPEC, "c0de", looking.digest(SPEC), {"m.py": "d1g"})
SEEN = {
    "identity": "", "spec": WANTED.digest, "files": {"m.py": "d1g"}, "paths": {"/data": True}, "memory": 8 << 30, "disk": 1 << 40,
    "scratch": "/scratch", "weights": "w1g",
}  # fmt: skip
VERSIONS = {"python": "3.11.2", "torch": "2.15.0+cu126", "torchvision": "0.29.2", "scalelab": "0.1.0"}


def told(host: str, seen: dict[str, Any] | None = None, **values: Any) -> Told:
    """A host that is fit, but for what is said."""
    found = {**SEEN, "identity": host, **(seen or {})}
    return replace(Told(Place(host), 1, versions=VERSIONS, code="c0de", seen=found, clock=(0.001, 0.002)), **values)


def faults(*hosts: Told, wanted: Wanted = WANTED) -> list[tuple[str, str]]:
    return [(fault.host, fault.check) for fault in checks.faults(hosts, wanted)]


def test_hosts_that_are_alike_are_fit() -> None:
    assert faults(told("a"), told("b"), told("c", versions={**VERSIONS, "python": "3.11.9", "torch": "2.15.0+cpu"})) == []


@pytest.mark.parametrize(
    ("one", "check"),
    [
        (told("b", versions={**VERSIONS, "python": "3.12.1"}), "python"),
        (told("b", versions={**VERSIONS, "torch": "2.11.0"}), "torch"),
        (told("b", versions={**VERSIONS, "torchvision": "0.28.0"}), "torchvision"),
        (told("b", versions={name: version for name, version in VERSIONS.items() if name != "torch"}), "torch"),
        (told("b", {"spec": "other"}), "spec"),
        (told("b", {"error": "unknown key 'x'"}), "spec"),
        (told("b", {"files": {}}), "file"),
        (told("b", {"files": {"m.py": "other"}}), "file"),
        (told("b", {"paths": {"/data": False}}), "data"),
        (told("b", {"weights": "other"}), "weights"),
        (told("b", {"disk": 1 << 20}), "disk"),
        (told("b", {"tmpdir": "/full: No space left on device"}), "disk"),
        (told("b", clock=(-7.5, 0.1)), "clock"),
        (told("b", {"identity": "a"}), "one host"),
        (told("b", code="other"), "scalelab"),
        (told("b", unreachable="Permission denied (publickey)."), "reachable"),
        (told("b", unreachable="/bin/true there ended with exit status 0, without a word"), "interpreter"),
        (told("b", unreachable="/bin/cat: invalid option -- 'm'"), "interpreter"),
        (told("b", unreachable="ssh ended with exit status 255, without a word"), "reachable"),
    ],
)
def test_what_is_wrong_with_a_host(one: Told, check: str) -> None:
    assert faults(told("a"), one, told("c")) == [("b", check)]


def test_a_clock_that_may_be_right_is_no_fault() -> None:
    assert faults(told("a"), told("b", clock=(3.0, 1.5))) == []


def test_of_a_host_that_runs_something_else_only_that_is_told() -> None:
    broken = told("b", {"files": {}, "disk": 0}, code="other", clock=(100.0, 0.0))
    assert faults(told("a", {"paths": {"/data": False}, "disk": 0}), broken) == [("a", "data"), ("a", "disk"), ("b", "scalelab")]


def test_memory_is_held_against_weights_and_gradients_of_all_workers_of_a_host() -> None:
    wanted = replace(WANTED, held=3 << 30)
    assert faults(told("a", workers=2), told("b", workers=3), wanted=wanted) == [("b", "memory")]


def test_where_checkpoints_are_written_more_room_is_needed() -> None:
    little = {"disk": 1 << 30}
    assert faults(told("a", little), told("b", little), wanted=replace(WANTED, held=1 << 30)) == [("a", "disk")]


def test_an_engine_that_a_host_lacks_is_told_with_the_version_of_the_others() -> None:
    wanted = replace(WANTED, spec=specs.from_mapping({"strategy": "zero1", "engine": "deepspeed", "workers": 2}))
    others = {**VERSIONS, "deepspeed": "0.19.8"}
    (fault,) = checks.faults([told("a", versions=others), told("b", versions=VERSIONS)], wanted)
    assert (fault.host, fault.found, fault.todo) == ("b", "not installed for that interpreter", "install deepspeed 0.19.8")


@pytest.mark.parametrize(
    ("said", "todo"),
    [
        ("ssh: connect to host b port 22: Connection refused", "is it on, does its sshd listen there (port=)"),
        ("Host key verification failed.", "`ssh-keygen -R b`"),
        ("root@b: Permission denied (publickey).", "make `ssh b true` work without a password"),
        ("ssh: Could not resolve hostname b: Name or service not known", "mend the name"),
        ("/usr/bin/python3: Error while finding module specification: No module named 'scalelab'", "install the same scalelab"),
        ("bash: line 1: /opt/python: No such file or directory", "name its interpreter with python="),
        ("something new", "`ssh b true` shows what ssh says"),
    ],
)
def test_ssh_s_words_come_with_what_to_do(said: str, todo: str) -> None:
    fault = checks.lost("b", said)
    assert fault.found == said
    assert todo in fault.todo


def test_one_fault_is_told_in_a_line_and_several_are_counted() -> None:
    one, *more = checks.faults([told("a", {"disk": 0, "files": {}})], WANTED)
    assert str(Unfit([one], 4)) == f"a: file: m.py is not there; {one.todo}"
    assert str(Unfit([one, *more], 4)) == "2 faults on 1 of 4 hosts (a); nothing was started"


def test_a_spec_is_the_same_wherever_its_data_is() -> None:
    assert looking.digest(SPEC) == looking.digest(specs.from_mapping({"strategy": "ddp", "workers": 3, "data": "cifar10"}))
    assert looking.digest(SPEC) != looking.digest(specs.from_mapping({"strategy": "ddp", "workers": 2, "data": "cifar10"}))


PLACES = (Place("a", 2), Place("b", 1, share=3.0), Place("c", 4, share=2.0))


def test_hosts_are_filled_in_their_order() -> None:
    assert [spread(PLACES, workers) for workers in (1, 3, 5, 7)] == [[1, 0, 0], [2, 1, 0], [2, 1, 2], [2, 1, 4]]
    with pytest.raises(ScalelabError, match="--workers 8: the hosts have 7 slots"):
        spread(PLACES, 8)


def test_a_hosts_share_is_its_workers_together() -> None:
    assert shares(PLACES, [2, 1, 4], 1) == "1:1:3:0.5:0.5:0.5:0.5"
    assert shares(PLACES, [2, 1, 2], 1) == "1:1:3:0.5:0.5"
    assert shares((Place("a"), Place("b")), [1, 1], 1) is None
    assert shares((Place("a", 2, share=2.0), Place("b")), [2, 1], 1) is None


def test_a_replica_has_the_share_of_its_slowest_worker() -> None:
    assert shares((Place("a", 2, share=4.0), Place("b", 2, share=1.0)), [2, 2], 2) == "2:0.5"
    assert shares((Place("a", 3, share=6.0), Place("b", 1, share=1.0)), [3, 1], 2) == "2:1"
    assert shares((Place("a", 1, share=4.0), Place("b", 1)), [1, 1], 2) is None


def test_initial_weights_are_known_by_what_they_hold(tmp_path: Path) -> None:
    for folder, body in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder / "checkpoints").mkdir(parents=True)
        (tmp_path / folder / "w.pt").write_bytes(body)
        (tmp_path / folder / "checkpoints" / "last.json").write_bytes(body)
    for name in ("w.pt", "."):  # a file, and a run's folder
        a, b, c = (looking.weights(specs.from_mapping({"weights": str(tmp_path / folder / name)})) for folder in "abc")
        assert a == b != c
    assert looking.weights(specs.from_mapping({"weights": str(tmp_path / "none")})) == looking.weights(SPEC) == {}


def test_one_faults_line_reads_as_a_sentence() -> None:
    said = "Host key verification failed."
    lost = checks.lost("b", said)
    assert str(Unfit([lost], 2)).startswith("b: reachable: Host key verification failed; compare the key")
    (twice,) = checks.faults([told("a"), told("b", {"identity": "a"})], WANTED)
    assert str(Unfit([twice], 2)) == "b: one host: this is the same host as a; name it once, with more slots"
    (full,) = checks.faults([told("b", {"disk": 1 << 20})], WANTED)
    assert full.found == "1.00 MiB are free in /scratch, 100 MiB are needed"


def test_the_tmpdir_that_was_meant_is_named(tmp_path: Path) -> None:
    lacking = looking.unusable(str(tmp_path / "nothere"))
    assert lacking == f"{tmp_path}/nothere: No such file or directory"
    assert looking.unusable(str(tmp_path)) is None
    (fault,) = checks.faults([told("b", {"tmpdir": lacking})], WANTED)
    assert fault.found == f"TMPDIR can't be written to: {tmp_path}/nothere: No such file or directory"
