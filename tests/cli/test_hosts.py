"""What is refused of the flags that say on which hosts, before any of them is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hosts", "nowhere/hosts"), "--hosts nowhere/hosts: there is no such file; nothing runs here instead"),
        (("--on", "hosts"), "--on hosts: on which? name them as --hosts h1:4,h2:4, or in a hostfile, --hosts FILE"),
        (
            ("--on", "local", "--hosts", "h1"),
            "--hosts: goes with --on hosts, not with --on local; name the hosts with --hosts, or",
        ),
        (("--interface", "wg0"), "--interface: goes with --on hosts, not with --on local"),
        (("--env", "A=1"), "--env: goes with --on hosts, not with --on local"),
        (("--master-addr", "h1"), "--master-addr: goes with --on hosts or inside, not with --on local"),
        (("--hosts", ""), "--hosts '': is empty; is a variable not set?"),
        (("--interface", ""), "--interface '': is empty"),
        (("--hosts", "h1", "--interface", "10.77.0.0/33"), "interface 10.77.0.0/33: is no subnet"),
        (("--master-addr", " "), "--master-addr '': is empty"),
        (("--on", "host"), "unknown place 'host' (did you mean 'hosts'?)"),
        (("--hosts", "h1,h1:2"), "--hosts h1,h1:2: h1 is there twice"),
        (("--hosts", "h1", "--env", "WORLD_SIZE=2"), "--env WORLD_SIZE: WORLD_SIZE is set for each rank by scalelab"),
        (("--hosts", "h1:2", "--workers", "3", "--strategy", "ddp"), "--workers 3: the hosts have 2 slots"),
    ],
)
def test_it_is_one_line_and_starts_nothing(command: Command, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ended = command("train", "--out", tmp_path / "runs", *words)
    assert ended.status == 2
    assert ended.error.startswith(said)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [("train",), ("verify",), ("doctor",), ("study", "weak-scaling")])
def test_an_unset_variable_as_hosts_does_not_mean_this_machine(command: Command, words: tuple[str, ...]) -> None:
    ended = command(*words, "--hosts", "")
    assert ended.status == 2
    assert ended.error.startswith("--hosts '': is empty")
