"""docs/benchmarks.md, written from the results: no number in it is typed by hand."""

from __future__ import annotations

from results import Results

METHOD = """\
Every contender trains the same network (3 × convolution 3×3, batch norm, ReLU, max-pool with 32, 64, 128 channels, then a
linear layer) on the same {images} with random crop, flip and normalisation, in float32, with SGD and momentum 0.9,
{batch} images per worker and step, on {workers} processes of one thread each that talk over gloo.

- Each run is a fresh group of processes. All contenders run once a round, in an order drawn anew each round
  ({rounds} rounds); ratios are taken within a round, and the median over the rounds is reported with its 95 %
  bootstrap interval.
- {warmup} steps warm up; then {steps} whole steps are timed, the fetching of the data included. The ranks leave a barrier
  together, and the time is the slowest rank's.
- Images are decoded beforehand for every contender.
- For scalelab the time between the steps counts as well (its records, TensorBoard events, the exchange of losses): the
  seconds of the epoch, less those of the warm-up's steps.
- `bare` is no trainer: it repeats forward, backward and optimizer of scalelab's model, tuned like `tuned`, on one batch. What
  scalelab lacks to it is the trainer's own share of a step.
- `plain`, `accelerate` and `fabric` fetch with {loaders} DataLoader workers in each process, and use torchvision's v2 transforms
  on uint8 tensors, faster here than the classic ones. Their model is in {layout}."""


def page(results: Results) -> str:
    """The page, as Markdown."""
    contest, host = results.contest, results.where.hosts[0]
    method = METHOD.format(
        images="50,000 images of CIFAR-10",
        batch=contest.batch,
        workers=contest.workers,
        rounds=len(next(iter(results.rates.values()))),
        warmup=contest.warmup,
        steps=contest.steps,
        loaders=contest.loaders,
        layout="channels-last, like `tuned`" if contest.channels_last else "torch's default layout, as in their documentation",
    )
    versions = ", ".join(f"{name} {version}" for name, version in results.where.versions.items())
    rows = "\n".join(
        f"| {name} | {results.about[name]} | {rate} | {spread} | {ratio} |" for name, rate, spread, ratio in results.rows()
    )
    goals = "\n".join(f"- {sentence}" for sentence in results.sentences())
    return f"""# How fast the trainer is

Written by `benchmarks/trainer.py` on {results.date}. `make bench` measures it again, on your machine.

{goals}

| contender | what it is | images/s | spread | scalelab is |
|---|---|---|---|---|
{rows}

Spread: scaled median absolute deviation over the rounds. *scalelab is*: its images/s over the contender's, median and 95 %
interval.

## Method

{method}

What sampling each worker's resources adds to a step has [a benchmark of its own](resources.md#what-a-worker-uses).

## Where

{host.processor}, {host.cores} cores, {host.memory_bytes / 2**30:.0f} GiB; {results.where.system}; {versions}.

    {results.command}
"""
