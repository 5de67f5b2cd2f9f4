"""The contenders, and how one of them is run: a fresh group of processes, ended with all it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from scalelab.errors import RunError, ScalelabError, unknown

PEERS_FOLDER = Path(__file__).parent / "peers"
LEARNING_RATE = 0.01
LIMIT_SECONDS = 900.0
"""for one run of one contender"""


@dataclass(frozen=True)
class Contest:
    """What is the same for every contender. ``arrays`` holds images.npy and labels.npy, ``data_dir`` the Parquet."""

    arrays: Path
    data_dir: Path
    steps: int
    warmup: int
    workers: int
    batch: int
    model: str
    loaders: int
    channels_last: bool
    seed: int


@dataclass(frozen=True)
class Contender:
    """``about`` is its line in the page; ``package`` what must be installed; ``start`` runs it and answers images/s."""

    about: str
    start: Callable[[Contest], float]
    package: str = "torch"


def run_peer(program: str, contest: Contest) -> float:
    """Images/s that ``peers/PROGRAM.py`` reports, run by ``contest.workers`` processes. Raises RunError."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", str(PEERS_FOLDER / f"{program}.py"), "--data", str(contest.arrays)]
    for name in ("batch", "steps", "warmup", "seed", "loaders"):
        command += [f"--{name}", str(getattr(contest, name))]
    command += ["--learning-rate", str(LEARNING_RATE), "--channels-last", str(int(contest.channels_last))]
    ranks = [environment(rank, contest.workers, port) for rank in range(contest.workers)]
    line = outputs([(command, each) for each in ranks])[0].strip().splitlines()[-1]
    return float(json.loads(line)["images_per_second"])


def run_scalelab(contest: Contest) -> float:
    """Images/s of ``scalelab train``, from what it leaves in its run folder. Raises RunError.

    Its own figure times the steps; here the time between them (records, events, exchanges of losses) counts too: the
    epochs' seconds, less the seconds of the warm-up's steps.
    """
    with tempfile.TemporaryDirectory(prefix="scalelab-bench-") as out:
        command = [str(Path(sys.executable).with_name("scalelab")), "train"]
        command += ["--strategy", "ddp", "--workers", str(contest.workers)]
        command += ["--model", contest.model, "--data", "cifar10", "--data-dir", str(contest.data_dir)]
        command += ["--batch-per-worker", str(contest.batch), "--threads-per-worker", "1", "--device", "cpu"]
        command += ["--steps", str(contest.warmup + contest.steps), "--warmup-steps", str(contest.warmup)]
        command += ["--lr", str(LEARNING_RATE), "--seed", str(contest.seed)]
        command += ["--probe-steps", "0", "--test-limit", "256", "--out", out, "--json"]
        record = json.loads(outputs([(command, {**os.environ})])[0])
        lines = (Path(out) / Path(record["run"]).name / "steps.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    if len(steps) != contest.warmup + contest.steps:
        raise RunError(f"scalelab trained {len(steps)} steps instead of {contest.warmup + contest.steps}")
    seconds = sum(epoch["seconds"] for epoch in record["epochs"]) - sum(step["seconds"] for step in steps[: contest.warmup])
    return contest.steps * contest.batch * contest.workers / seconds


def environment(rank: int, workers: int, port: int) -> dict[str, str]:
    """torchrun's variables for one rank, on one thread."""
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(workers),
        "LOCAL_WORLD_SIZE": str(workers),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "benchmark",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def outputs(programs: list[tuple[list[str], dict[str, str]]]) -> list[str]:
    """What each of the processes, run together, printed. Raises RunError for the first that fails; none is left behind."""
    with contextlib.ExitStack() as stack:
        said, logs = ([stack.enter_context(tempfile.TemporaryFile("w+")) for _ in programs] for _ in range(2))
        running = []
        stack.callback(lambda: [end(process) for process in running])
        for (command, each), out, log in zip(programs, said, logs, strict=True):
            running.append(subprocess.Popen(command, env=each, stdout=out, stderr=log, start_new_session=True))
        limit = time.monotonic() + LIMIT_SECONDS
        while any(process.poll() is None for process in running):
            failed = next((rank for rank, process in enumerate(running) if process.returncode), None)
            if failed is not None or time.monotonic() > limit:
                break
            time.sleep(0.2)
        for process, log, (command, _) in zip(running, logs, programs, strict=True):
            if process.returncode:
                lines = text_of(log).strip().splitlines()
                what = lines[-1] if lines else "no message"
                raise RunError(f"{' '.join(command[1:5])} … ended with status {process.returncode}: {what}")
        if time.monotonic() > limit:
            raise RunError(f"{' '.join(programs[0][0][1:5])} … took longer than {LIMIT_SECONDS:.0f} s")
        return [text_of(out) for out in said]


def text_of(file: IO[str]) -> str:
    """All that was written to it."""
    file.seek(0)
    return file.read()


def end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started, if it still runs: its session is its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def peer(program: str) -> Callable[[Contest], float]:
    """The ``start`` of the peer in ``peers/PROGRAM.py``."""
    return lambda contest: run_peer(program, contest)


PEERS: dict[str, Contender] = {
    "plain": Contender("PyTorch DDP with torchvision transforms and DataLoader", peer("plain")),
    "tuned": Contender("the best PyTorch DDP loop we could tune by hand", peer("tuned")),
    "accelerate": Contender("Hugging Face Accelerate", peer("with_accelerate"), "accelerate"),
    "fabric": Contender("Lightning Fabric", peer("with_fabric"), "lightning"),
}
BARE = Contender("forward, backward and optimizer of the same model on one batch: a bound, not a trainer", peer("bare"))
SCALELAB = Contender("`scalelab train --strategy ddp`", run_scalelab)


def chosen(names: str) -> dict[str, Contender]:
    """The peers in ``names`` (comma-separated), then the bound and scalelab. Raises ScalelabError in one line."""
    peers: dict[str, Contender] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in PEERS:
            raise unknown("peer", name, PEERS)
        if find_spec(PEERS[name].package) is None:
            package = PEERS[name].package
            raise ScalelabError(f"peer '{name}' needs the package {package}: run `make bench`, or leave it out of --peers")
        peers[name] = PEERS[name]
    return {**peers, "bare": BARE, "scalelab": SCALELAB}
