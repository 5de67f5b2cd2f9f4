"""How fast scalelab trains next to the loops and frameworks people use: all interleaved in one call, as ratios.

`make bench` installs the peers, then runs this:
    python benchmarks/trainer.py --data-dir FOLDER --write docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from arrays import decode
from contenders import Contest, chosen
from page import page
from results import Results, summary
from scalelab.errors import ScalelabError


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 when a contender failed, 2 for a user's mistake."""
    given = parser().parse_args(words)
    try:
        results = measure(given)
        if given.json:
            print(json.dumps(results.as_json(), indent=2))
        else:
            show(results)
        if given.write:
            given.write.parent.mkdir(parents=True, exist_ok=True)
            given.write.write_text(page(results), encoding="utf-8")
    except ScalelabError as error:
        print(f"benchmarks/trainer.py: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(description="scalelab's trainer next to its peers, interleaved, as ratios")
    flags.add_argument("--data-dir", type=Path, required=True, help="CIFAR-10 as the hub's Parquet files")
    flags.add_argument("--rounds", type=positive, default=5, help="times that each contender runs")
    flags.add_argument("--steps", type=positive, default=60, help="timed steps of each run")
    flags.add_argument("--warmup", type=positive, default=10, help="steps before the clock starts")
    flags.add_argument("--workers", type=positive, default=2, help="processes of each contender, one thread each")
    flags.add_argument("--batch-per-worker", type=positive, default=64)
    flags.add_argument("--model", choices=["basic_cnn"], default="basic_cnn", help="the model that every contender defines")
    flags.add_argument("--peers", default="plain,tuned,accelerate,fabric", help="comma-separated")
    flags.add_argument("--loaders", type=int, default=0, help="DataLoader workers of each process (plain, accelerate, fabric)")
    flags.add_argument("--peers-channels-last", action="store_true", help="give plain, accelerate and fabric that layout too")
    flags.add_argument("--seed", type=int, default=0, help="of the weights, and of the order in which contenders run")
    flags.add_argument("--json", action="store_true", help="one JSON document on stdout")
    flags.add_argument("--write", type=Path, help="write the page to this file, such as docs/benchmarks.md")
    return flags


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def measure(given: argparse.Namespace) -> Results:
    """Run every contender once a round, in an order drawn anew each round. Raises ScalelabError."""
    contenders = chosen(given.peers)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    order = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="scalelab-bench-") as folder:
        say(f"decoding the images of {given.data_dir}")
        decode(given.data_dir, Path(folder))
        contest = Contest(
            Path(folder),
            given.data_dir.resolve(),
            given.steps,
            given.warmup,
            given.workers,
            given.batch_per_worker,
            given.model,
            given.loaders,
            given.peers_channels_last,
            given.seed,
        )
        for number in range(1, given.rounds + 1):
            for name in order.sample(sorted(contenders), len(contenders)):
                rates[name].append(contenders[name].start(contest))
                say(f"round {number}/{given.rounds}  {name:<11} {rates[name][-1]:7.0f} images/s")
    return summary(rates, {name: each.about for name, each in contenders.items()}, contest, command(given))


def command(given: argparse.Namespace) -> str:
    """The command line again, with the data's folder left for the reader to fill in."""
    flags = {"rounds": given.rounds, "steps": given.steps, "warmup": given.warmup, "workers": given.workers}
    flags |= {"batch-per-worker": given.batch_per_worker, "peers": given.peers, "loaders": given.loaders, "seed": given.seed}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    words += ["--peers-channels-last"] if given.peers_channels_last else []
    return "python benchmarks/trainer.py --data-dir FOLDER " + shlex.join(words)


def show(results: Results) -> None:
    """The table, on stdout."""
    table = Table("contender", "images/s", "spread", "scalelab is", title="scalelab next to its peers")
    for row in results.rows():
        table.add_row(*row)
    console = Console()
    console.print(table)
    for sentence in results.sentences():
        console.print(sentence, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
