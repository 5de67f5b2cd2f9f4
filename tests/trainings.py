"""Small real trainings for tests: a few kilobytes of weights on 8×8 images, a fraction of a second each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from scalelab import spec as specs
from scalelab.cli.train import spec_of
from scalelab.launch import training
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from scalelab.spec import Spec
from scalelab.strategies import STRATEGIES

TINY: dict[str, Any] = {
    "data": "synthetic", "image_size": 8, "classes": 4, "train_limit": 96, "test_limit": 30, "batch": 24, "model_args": {"width": 4},
    "threads_per_worker": 1, "probe_steps": 0, "warmup_steps": 0,
}  # fmt: skip
"""4 steps an epoch; batch 24 divides over 1, 2, 3 and 4 workers, twice accumulated too"""

DATA_FLAGS = [
    "--data", "synthetic", "--image-size", "8", "--classes", "4", "--train-limit", "96", "--test-limit", "30", "--batch", "24",
    "--threads-per-worker", "1",
]  # fmt: skip
VERIFY_FLAGS = [*DATA_FLAGS, "--model-arg", "width=4"]
FLAGS = [*VERIFY_FLAGS, "--probe-steps", "0", "--warmup-steps", "0"]
"""the same as flags: without the model's argument, as ``verify`` takes them, as ``train`` does"""

SPREAD = ("ddp", "zero1", "zero2", "zero3")
EVERY = tuple(name for name in STRATEGIES if name != "dp")
"""all strategies but the one that needs two GPUs"""


Reference = Callable[..., tuple[Path, TrainRecord]]
"""a training's folder of runs and its record, by its values: the fixture ``reference``"""


def tiny(out: Path, **values: Any) -> Spec:
    """A spec of a small training under ``out``."""
    return specs.from_mapping({**TINY, "out": str(out), **values})


def train(pool: Pool, out: Path, **values: Any) -> TrainRecord:
    """Run a small training to its end; its record. ``resume=FOLDER`` goes on with a run, as the command does."""
    spec = spec_of({**values, "resume": str(values["resume"])}) if values.get("resume") else tiny(out, **values)
    return training.train(pool, training.prepare(pool, spec), ["test"], lambda folder: None)


def completed(pool: Pool, out: Path, **values: Any) -> TrainRecord:
    """``train``, which must not fail."""
    record = train(pool, out, **values)
    assert record.status == "completed", record.failure
    return record


def final(out: Path, record: TrainRecord) -> dict[str, np.ndarray]:
    """All tensors of a run's newest checkpoint: the model's and the optimizer's."""
    files = sorted((out / record.run / "checkpoints").glob("step-*.safetensors"))
    return dict(load_file(files[-1]))


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Whether two checkpoints hold the same bits."""
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """max |a - b| over all tensors of the same names."""
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name].astype(np.float64) - b[name].astype(np.float64)).max()) for name in a if a[name].size)


def scores(record: TrainRecord) -> list[dict[str, Any]]:
    """What each epoch gave, without its times."""
    return [{k: v for k, v in msgspec.to_builtins(e).items() if k not in ("seconds", "images_per_second")} for e in record.epochs]


def only_run(out: Path) -> Path:
    """The one run folder under ``out``."""
    (folder,) = records.find([], out)
    return folder


def start(*words: object, **options: Any) -> subprocess.Popen[str]:
    """``scalelab WORDS`` as a process of its own, its output captured."""
    environment = {**os.environ, **options.pop("env", {})}
    line = [sys.executable, "-m", "scalelab", *map(str, words)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options)


def processes_of(text: str) -> list[int]:
    """Ids of the processes whose command line, environment or open files mention ``text``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _mentions(entry, text):
            found.append(int(entry.name))
    return found


def _mentions(entry: Path, text: str) -> bool:
    try:
        if text.encode() in (entry / "cmdline").read_bytes() or text.encode() in (entry / "environ").read_bytes():
            return True
        return any(text in os.readlink(descriptor) for descriptor in (entry / "fd").iterdir())
    except OSError:  # it has ended, or is another user's
        return False


def pictures(root: Path) -> Path:
    """JPEGs of different sizes in ``root``, of two classes: 32 to train on, 8 to test."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 16), ("test", 4)):
        for label in range(2):
            folder = root / part / str(label)
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = generator.integers(0, 256, (12 + k % 3, 14, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{k}.jpg")
    return root


def of_model(folder: Path, name: str, source: str) -> list[str]:
    """Flags of a long ddp training in ``folder`` of the model that ``net`` builds in ``source``, which becomes the file ``name``."""
    (folder / name).write_text(source)
    return [*DATA_FLAGS, "--strategy", "ddp", "--epochs", "60", "--model", f"{folder / name}:net", "--out", f"{folder}/runs"]
