"""The rendezvous' port: refused where it is taken, held from the first moment."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.local import listen
from scalelab.launch.pool import Pool
from tests.conftest import Command
from tests.support import free_port
from tests.trainings import FLAGS, completed


def test_a_port_in_use_is_told_before_anything_is_left(command: Command, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = command("train", *FLAGS, "--strategy", "ddp", "--workers", 2, "--master-port", port, "--out", tmp_path / "runs")
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith(f"scalelab: --master-port {port}: ")
    assert "Traceback" not in ended.err
    assert not (tmp_path / "runs").exists()


def test_a_port_that_is_free_is_used(pool: Pool, tmp_path: Path) -> None:
    port = free_port()
    completed(pool, tmp_path, strategy="ddp", workers=2, master_port=port)
    completed(pool, tmp_path, strategy="ddp", workers=2, master_port=port)  # and is free again at once


def test_the_port_is_held_from_the_first_moment() -> None:
    listener = listen(None)
    with pytest.raises(ScalelabError, match="--master-port"):
        listen(listener.getsockname()[1])
    listener.close()
