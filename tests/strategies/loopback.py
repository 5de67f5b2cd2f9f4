"""``python -m tests.strategies.loopback SPEC.yaml …`` in a network of its own: what each training sent over the loopback interface."""

from __future__ import annotations

import sys
from pathlib import Path

from scalelab import spec as specs
from scalelab.launch import local
from scalelab.launch.pool import Pool

COUNTER = Path("/proc/net/dev")


def sent() -> int:
    """Bytes that the interface carried since it is up."""
    line = next(line for line in COUNTER.read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def main(files: list[str]) -> None:
    """One training after another, in one server; a number a line."""
    with Pool() as pool:
        for file in files:
            before = sent()
            record = local.train(pool, local.prepare(pool, specs.load(Path(file))), ["test"], lambda folder: None)
            assert record.status == "completed", record.failure
            print(sent() - before, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
