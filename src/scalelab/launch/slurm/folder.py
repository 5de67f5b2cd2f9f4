"""What ``slurm/`` in the folder of a run, a study or a sweep holds: scripts, what jobs printed, their ids, whether they were cancelled."""

from __future__ import annotations

import json
from pathlib import Path

from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord

PART, CANCELLED = "slurm", "cancelled"


def script(folder: Path) -> Path:
    """The batch script: ``sbatch RUN/slurm/job.sh`` submits it again."""
    return folder / PART / "job.sh"


def output(folder: Path) -> Path:
    """What the job prints, all its attempts one after the other."""
    return folder / PART / "output.txt"


def note_submission(folder: Path, job: str) -> None:
    """Keep the id of the job that a run waits in; its record is the job's own from here on."""
    records.write_atomic(folder / PART / "job.json", json.dumps({"job": job, "submitted": records.now()}))


def job_of(folder: Path, record: TrainRecord) -> str | None:
    """The job that a run is in, or was in last; None where Slurm had nothing to do with it."""
    for attempt in reversed(record.attempts):
        if attempt.job is not None:
            return attempt.job
        if attempt.status == "queued":
            break
    try:
        return str(json.loads((folder / PART / "job.json").read_text())["job"])
    except (OSError, ValueError, KeyError):
        return None


def note_plan(folder: Path, plan: dict[str, int]) -> None:
    """Keep how many steps there will be, for who waits."""
    records.write_atomic(folder / PART / "plan.json", json.dumps(plan))


def total_steps(folder: Path) -> int | None:
    """How many steps there will be; None where it is not known yet."""
    try:
        return int(json.loads((folder / PART / "plan.json").read_text())["total_steps"])
    except (OSError, ValueError, KeyError):
        return None


def mark_cancelled(folder: Path, yes: bool) -> None:
    """Say that a study or a sweep was cancelled as a whole, so that nobody who follows it submits more; or take that back."""
    if yes:
        (folder / PART).mkdir(exist_ok=True)
        (folder / PART / CANCELLED).touch()
    else:
        (folder / PART / CANCELLED).unlink(missing_ok=True)


def cancelled(folder: Path) -> bool:
    """Whether that was said."""
    return (folder / PART / CANCELLED).exists()
