"""What trainings send over the loopback interface: in a network of their own, where the kernel lets one make it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scalelab import spec as specs
from scalelab.launch import training
from scalelab.launch.pool import Pool

COUNTER = Path("/proc/net/dev")
OWN_NETWORK = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""runs a command in a network namespace of its own, where nothing else travels"""


def apart() -> bool:
    """Whether a command can have a network of its own: containers may forbid it."""
    return subprocess.run([*OWN_NETWORK, "true"], capture_output=True).returncode == 0


def counted(files: Sequence[Path], own: bool) -> list[int]:
    """Bytes that each training of these specs sent; without a network of its own, with whatever else this machine sent meanwhile."""
    line = [*(OWN_NETWORK if own else ()), sys.executable, "-m", "tests.loopback", *map(str, files)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.splitlines()]


def sent() -> int:
    """Bytes that the interface carried since it is up."""
    line = next(line for line in COUNTER.read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def main(files: list[str]) -> None:
    """One training after another, in one server; a number a line."""
    with Pool() as pool:
        for file in files:
            before = sent()
            record = training.train(pool, training.prepare(pool, specs.load(Path(file))), ["test"], lambda folder: None)
            assert record.status == "completed", record.failure
            print(sent() - before, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
