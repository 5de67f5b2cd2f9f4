"""The names in records and ``--json`` alike. A JSON Schema in docs/ is generated from these models."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from scalelab.batch import Derived
from scalelab.record.figure import Figure as Figure
from scalelab.record.figure import drop_non_finite, require_finite
from scalelab.record.usage import Ceiling as Ceiling
from scalelab.record.usage import Resources as Resources
from scalelab.record.usage import Sample as Sample
from scalelab.record.verified import Cell as Cell
from scalelab.record.verified import VerifyRecord as VerifyRecord

Status = Literal["queued", "running", "completed", "failed", "interrupted", "lost"]
"""queued: its job waits in a cluster's queue, for the first time or again"""


class Communication(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a step: in collectives (total); added to the step (exposed); behind compute (hidden).

    ``waited`` is another reading of the exposed, by the profiler; ``bare`` is what the step's collectives take by themselves.
    """

    total: Figure
    exposed: Figure
    hidden: Figure
    waited: Figure = Figure(unit="s", reason="this record has no such reading")
    bare: Figure = Figure(unit="s", reason="this record has no such reading")


class Tensors(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of the tensors alive when they are most in a step, of the worker with most; ``per_worker``: each one's sum."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    other: int
    most_activations: int
    """when those are most, on any worker: at the end of a forward pass"""
    gradients_at_update: int
    """when the optimizer takes them, on any worker"""
    per_worker: list[int] = []


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. ``peak`` is over the workers (n workers); the categories are of the largest worker.

    ``parameters``, ``gradients`` and ``optimizer`` are a worker's own part, as it lies between steps (gradients: while there are any);
    ``tensors`` is what a step holds at its peak.
    """

    peak: Figure
    baseline: int | None = None
    """of the process before the model was built: the interpreter, the libraries, the data"""
    parameters: int | None = None
    gradients: int | None = None
    optimizer: int | None = None
    per_worker: list[int] = []
    tensors: Tensors | None = None


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the training data, evaluated at its end. Precision and recall are macro averages.

    None: the value was not finite. The others always are; a ValueError says where one is not.
    """

    epoch: int
    steps: int
    train_loss: float | None
    test_loss: float | None
    accuracy: float
    precision: float | None
    recall: float | None
    learning_rate: float
    seconds: float
    images_per_second: float | None
    confusion: list[list[int]] = []
    """confusion[true class][predicted class], counts of test samples; of the last epoch"""

    def __post_init__(self) -> None:
        drop_non_finite(self, "train_loss", "test_loss", "precision", "recall", "images_per_second")
        require_finite(self, "accuracy", "learning_rate", "seconds")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One optimizer step: a line of steps.jsonl. Times are the slowest worker's."""

    step: int
    epoch: int
    batch: int
    learning_rate: float
    loss: float
    seconds: float
    data_seconds: float
    bytes_sent: int | None = None
    at: float | None = None
    """when it ended, by the first worker's clock: seconds since 1970, UTC"""

    def __post_init__(self) -> None:
        drop_non_finite(self, "at")
        require_finite(self, "learning_rate", "loss", "seconds", "data_seconds")  # the run ends where a loss is not


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What ended a run: the first rank that failed, and its own traceback."""

    error: str
    host: str = ""
    rank: int | None = None
    traceback: str = ""
    expected: bool = False
    """whether ``error`` says all that a user needs (a loss that became NaN, a full disk); else read the traceback"""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One start of the run (a resumed run has several). Times are UTC, ISO 8601."""

    started: str
    ended: str | None = None
    host: str = ""
    pid: int | None = None
    """of the launcher: when it is gone, a run that says it is running is lost"""
    status: Status = "running"
    first_step: int = 0
    start_seconds: float | None = None
    """from the launch to the first training step"""
    notes: list[str] = []
    """those of the record's notes that say how this attempt was spread: the next has its own"""
    job: str | None = None
    """of the cluster, that it ran in: Slurm's id"""
    queued: str | None = None
    """when the job came into the queue"""
    stopped: int | None = None
    """the step after which it was asked to stop; a checkpoint of that step is saved"""
    why: str | None = None
    """why it ended, where its cluster ended it: time limit, preempted, cancelled, a node lost"""

    @property
    def began(self) -> bool:
        """Whether it came further than a cluster's queue."""
        return self.queued is None or bool(self.host)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of a run. ``cores`` and ``memory_bytes`` are what the run may use of it."""

    name: str
    processor: str = ""
    cores: int = 0
    workers: int = 0
    """of the run, on this host; 0: not kept by an earlier version"""
    memory_bytes: int = 0
    devices: list[str] = []
    cache_bytes: int = 0
    """the largest cache that a core sees; 0: not known"""
    links: dict[str, int] = {}
    """bytes/s of the network interfaces that tell their speed"""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what a run was made. Never holds environment variables: they may be secrets."""

    hosts: list[Host] = []
    versions: dict[str, str] = {}
    system: str = ""
    git_commit: str | None = None
    code: str | None = None
    """digest of scalelab's own source"""
    files: dict[str, str] = {}
    """digests of the user's own files that the spec names, by their paths there"""
    backend: str = ""
    device: str = ""
    threads: int = 0
    command: list[str] = []


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was trained. ``parameters`` is their number, ``bytes`` their size in float32."""

    name: str
    parameters: int
    trained: int | None = None
    """how many of them are trained: all, but where some are frozen; None: a record from before it was kept"""
    bytes: int
    notes: list[str] = []
    """what to know of it: the file and the head of its initial weights, what is frozen, how an ensemble averages"""
    flops_per_image: Figure = Figure(unit="FLOP", reason="not counted")
    """of training: forward and backward pass; multiplications and additions of matrix products, convolutions and attention"""


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What it was trained on: the numbers of samples, the classes' names, the shape of an image."""

    name: str
    train: int
    test: int
    classes: list[str]
    shape: list[int]
    """[channels, height, width] as the model gets them; of clips [frames, channels, height, width]"""
    streamed: bool = False
    """decoded while the training runs, by ``derived.data_threads`` threads of each worker"""
    notes: list[str] = []
    """what to know of how the files were read"""


class Bubble(msgspec.Struct, frozen=True, kw_only=True):
    """Where the workers of a pipeline wait, from recorded steps (n steps): shares of a step's span. The parts add up to ``measured``.

    What each is: scalelab.measure.bubble. The events are in the run's timeline.json.
    """

    measured: Figure
    order: Figure
    """what the order of the passes costs where all stages are equal and messages take no time"""
    unequal: Figure
    """what unequal stages add"""
    jitter: Figure
    """what passes of one stage that take longer now and then add"""
    rest: Figure
    """messages, and what the schedule itself does between passes"""
    span_seconds: Figure
    """from the first forward pass on any worker to the last backward pass"""
    compute_seconds: Figure
    """in passes, a step, all workers of a pipeline together"""
    theory: float | None = None
    """the least that the schedule can have: (p-1)/(m+p-1) for gpipe and 1f1b"""
    busy_seconds: list[Figure] = []
    """in passes, by the workers' places in the pipeline"""
    schedule: str | None = None
    workers: int | None = None
    """of one pipeline: p"""
    micro_batches: int | None = None
    """m"""
    micro_batch: int | None = None
    """images"""
    clock_error: float | None = None
    """seconds by which two workers' clocks may disagree; 0 on one host"""


class TrainRecord(msgspec.Struct, kw_only=True):
    """record.json of a training. Figures that a run has not reached yet are absent with a reason."""

    kind: Literal["train"] = "train"
    format: int = 1
    run: str
    name: str
    status: Status = "running"
    strategy: str
    engine: str
    workers: int
    derived: Derived
    spec: dict[str, Any]
    model: ModelFacts | None = None
    data: DataFacts | None = None
    images_per_second: Figure
    step_seconds: Figure
    compute_seconds: Figure
    communication_seconds: Communication
    data_wait_seconds: Figure
    data_wait_share: Figure = Figure(unit="share", reason="not kept by an earlier version")
    """of a step's time"""
    memory_bytes: Memory
    bytes_sent: Figure
    resources: Resources | None = None
    """what the workers used, by the samples of resources/; None: not sampled"""
    bubble: Bubble | None = None
    """of strategies that cut the model into stages"""
    losses: list[float] = []
    """one a step, finite as the steps' are"""
    epochs: list[Epoch] = []
    accuracy: float | None = None
    best_accuracy: float | None = None
    steps: int = 0
    seconds: float | None = None
    """training and evaluation, without the start"""
    failure: Failure | None = None
    attempts: list[Attempt] = []
    environment: Environment = Environment()
    method: dict[str, str] = {}
    """how each figure of this record was measured, by its name"""
    notes: list[str] = []

    def __post_init__(self) -> None:
        drop_non_finite(self, "accuracy", "best_accuracy", "seconds")
        if not all(map(math.isfinite, self.losses)):
            raise ValueError("TrainRecord.losses: not all are finite numbers")
