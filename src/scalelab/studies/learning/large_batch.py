"""A large batch learns less in as many epochs: how much, which remedy wins back how much of it, and how large a batch loses nothing?

Two sets of trainings: each batch with each remedy for equal epochs (the same images, so fewer steps where the batch is larger), and
for equal steps (as many as the largest batch takes in those epochs, unless ``--equal-steps`` says otherwise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalelab.errors import ScalelabError, unknown
from scalelab.record.study import Factor, Findings
from scalelab.spec import Spec, defaults
from scalelab.studies.learning.large_batch_compared import Compared, Tried, compare
from scalelab.studies.learning.large_batch_findings import findings
from scalelab.studies.learning.remedies import REMEDIES, Setting, Values
from scalelab.studies.points import with_values
from scalelab.studies.study import Asked, Option, Point, Result, Study

OURS = (
    "batch_per_worker",
    "lr_scaling",
    "base_batch",
    "batch_schedule",
    "lr_follows_batch",
    "steps",
    "target_accuracy",
    "early_stop",
)
"""fields of the spec that the study sets itself"""
SAMPLES = {"digits": 1437, "cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}
"""training samples of the data sets whose size is known before they are read: what a number of steps is in epochs"""
AUTO = "auto"
QUICK = ["none", "warm-up", "lars", "lamb", "batch-schedule"]
LARS_LR, LAMB_LR = 2.5, 0.0075
"""for batch 128 on CIFAR-10 with basic_cnn; docs/learning-studies.md has what they were chosen from"""


@dataclass(frozen=True)
class Cell:
    """A batch with a remedy, trained for ``steps`` steps, or for the epochs where that is None."""

    batch: int
    remedy: str
    steps: int | None
    spec: Spec

    @property
    def label(self) -> str:
        """What its training is called."""
        return f"batch {self.batch}, {self.remedy}" + (f", {self.steps} steps" if self.steps else "")


def cells(asked: Asked) -> list[Cell]:
    """All that is compared. Raises ScalelabError in one line for what can't be asked."""
    _check(asked)
    batches, remedies = sorted(set(asked.varied["batch"])), _remedies(asked)
    found = [_cell(asked, batches[0], batch, name, None) for batch in batches for name in remedies]
    steps = equal_steps(asked)
    if steps:
        by_steps = [name for name in remedies if not REMEDIES[name].by_epochs]
        found += [_cell(asked, batches[0], batch, name, steps) for batch in batches for name in by_steps]
    return found


def points(asked: Asked) -> list[Point]:
    """A training for each cell; what would be the same training twice (a rate that is scaled by 1) is one."""
    return list(_trained_as(asked).values())


def _trained_as(asked: Asked) -> dict[str, Point]:
    """The training of each cell, by its spec."""
    found: dict[str, Point] = {}
    for cell in cells(asked):
        factors: dict[str, Factor] = {
            "batch": cell.batch,
            "remedy": cell.remedy,
            "trained": f"{cell.steps} steps" if cell.steps else "epochs",
        }
        found.setdefault(str(cell.spec), Point(cell.label, factors, cell.spec))
    return found


def equal_steps(asked: Asked) -> int:
    """Steps of the second set of trainings; 0: there is none. Raises ScalelabError for what is no number."""
    said = asked.options["equal_steps"]
    if said != AUTO:
        try:
            steps = int(said)
        except ValueError:
            steps = -1
        if steps < 0:
            raise ScalelabError(f"--equal-steps {said}: expected a number of steps, 0 for none, or {AUTO}")
        if steps and samples(asked.base) is None:
            raise ScalelabError(f"--equal-steps {said}: say with --train-limit how many samples {asked.base.data} has")
        return steps
    known = samples(asked.base)
    return 0 if known is None else (asked.base.epochs or 1) * (known // max(asked.varied["batch"]))


def samples(spec: Spec) -> int | None:
    """Training samples, where they are known before the data is read."""
    sizes = [size for size in (spec.train_limit, SAMPLES.get(spec.data)) if size is not None]
    return min(sizes, default=None)


def _cell(asked: Asked, base: int, batch: int, name: str, steps: int | None) -> Cell:
    """``base`` is the batch that the learning rates are meant for."""
    spec, options, epochs = asked.base, asked.options, asked.base.epochs or 1
    warmup, whole = spec.warmup_epochs, epochs * ((samples(spec) or 0) // batch)
    if steps:  # the same share of the training
        warmup *= steps / max(1, whole)
    setting = Setting(batch, base, epochs, warmup, spec.label_smoothing, float(options["lars_lr"]), float(options["lamb_lr"]))
    plain: Values = {"batch": batch, "warmup_epochs": 0.0, "label_smoothing": 0.0}
    length: Values = {"epochs": None, "steps": steps} if steps and steps != whole else {"epochs": epochs}
    values = {**plain, **length, **REMEDIES[name].values(setting)}
    return Cell(batch, name, steps, with_values(spec, **values))


def _remedies(asked: Asked) -> list[str]:
    """Those that are tried, "none" first: the others are measured against it."""
    asked_for = list(dict.fromkeys(asked.options["remedies"]))
    for name in asked_for:
        if name not in REMEDIES:
            raise unknown("remedy", name, REMEDIES)
    return ["none", *(name for name in asked_for if name != "none")]


def _check(asked: Asked) -> None:
    if not asked.base.evaluate:
        raise ScalelabError("--no-evaluate: study large-batch compares accuracies on the test set; leave it out")
    if len(set(asked.varied["batch"])) < 2:
        raise ScalelabError(f"--batch {asked.varied['batch'][0]}: a large batch is compared with a small one; give two or more")
    plain = defaults()
    for name in OURS:
        if getattr(asked.base, name) != plain[name]:
            flag = name.replace("_", "-")
            raise ScalelabError(f"--{flag} {getattr(asked.base, name)}: large-batch sets it itself, from --batch and --remedies")
    for name in ("lars_lr", "lamb_lr"):
        if not float(asked.options[name]) > 0:
            raise ScalelabError(f"--{name.replace('_', '-')} {asked.options[name]}: expected a positive number")


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """Accuracy over seeds of each batch with each remedy, against the smallest batch and against no remedy."""
    trained, by_label = _trained_as(asked), {result.point.label: result for result in results}
    tried = []
    for cell in cells(asked):
        point = trained[str(cell.spec)]
        same = cell.remedy != "none" and point.factors["remedy"] == "none"
        tried.append(Tried(cell.batch, cell.remedy, cell.steps, by_label[point.label], same))
    epochs = asked.base.epochs or 1
    length = f"{epochs} epoch{'s' * (epochs > 1)}"
    by_steps = [one for one in tried if one.steps]
    compared = compare([one for one in tried if not one.steps])
    by_step = compare(by_steps) if by_steps else []
    return findings(compared, by_step, length, _notes(asked, compared, by_step))


def _notes(asked: Asked, *tables: Sequence[Compared]) -> list[str]:
    """What was left out, and what many comparisons do."""
    found = []
    left_out = [name for name in _remedies(asked) if REMEDIES[name].by_epochs]
    if not equal_steps(asked):
        why = "--equal-steps 0" if asked.options["equal_steps"] != AUTO else "their number is known with --train-limit"
        found.append(f"no trainings of equal steps were made: {why}")
    elif left_out:
        found.append(f"{', '.join(left_out)}: not in the trainings of equal steps, which have no epochs to speak of")
    judged = sum(len(one.judged) for rows in tables for one in rows)
    if judged > 1:
        found.append(
            f"{judged} differences are judged, from the baseline and from no remedy, each at 95 %: of twenty that are none one would be "
            "called one by chance"
        )
    return found


STUDY = Study(
    name="large-batch",
    question="A large batch learns less in as many epochs: how much less, and which remedy wins it back?",
    points=points,
    analyse=analyse,
    example="  scalelab study large-batch --data cifar10 --data-dir data/cifar10 --train-limit 20000 --batch 128 2048 8192\n"
    "  scalelab study large-batch --batch 32 512 --remedies none warm-up lars --seeds 5",
    base={
        "model": "basic_cnn", "epochs": 5, "lr": 0.01, "schedule": "cosine", "warmup_epochs": 1.0, "label_smoothing": 0.1,
        "checkpoint": False, "probe_steps": 0,
    },
    varies={"batch": [128, 512, 2048, 8192]},
    quick={"batch": [128, 1024], "epochs": 3, "train_limit": 10_000, "equal_steps": "0", "remedies": QUICK},
    options=(
        Option("remedies", list(REMEDIES), f"what is tried: {', '.join(REMEDIES)}"),
        Option("equal_steps", AUTO, "steps of a second set of trainings (auto: those of the largest batch in --epochs; 0: none)", "N"),
        Option("lars_lr", LARS_LR, "peak learning rate of LARS for the smallest batch", "X"),
        Option("lamb_lr", LAMB_LR, "peak learning rate of LAMB for the smallest batch", "X"),
    ),
    repeats=3,
    seeded=True,
)  # fmt: skip
