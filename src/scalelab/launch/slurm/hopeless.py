"""Jobs that Slurm would hold for ever: the reasons that no waiting ends, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

from scalelab.launch.slurm.jobs import State

SIZE = "lower --cpus-per-task, --gpus-per-node or --nodes, or choose another --partition"
TIME = "lower --time, or choose another --partition"
ACCOUNT = "choose another --account or --partition"
HOPELESS = {
    "PartitionConfig": SIZE, "PartitionNodeLimit": SIZE, "BadConstraints": SIZE, "AssocMaxNodePerJobLimit": SIZE,
    "AssocMaxCpuPerJobLimit": SIZE, "QOSMaxNodePerJobLimit": SIZE, "QOSMaxCpuPerJobLimit": SIZE, "MaxNodePerAccount": SIZE,
    "PartitionTimeLimit": TIME, "AssocMaxWallDurationPerJobLimit": TIME, "QOSMaxWallDurationPerJobLimit": TIME,
    "AccountNotAllowed": ACCOUNT, "QOSNotAllowed": ACCOUNT, "InvalidAccount": ACCOUNT, "InvalidQOS": ACCOUNT,
    "DependencyNeverSatisfied": "what it was to follow has failed",
}  # fmt: skip
"""reasons for which a job waits for ever, if nobody changes a limit, and what to do: squeue(1), "JOB REASON CODES" """
EVER = "it would wait for ever: "


def for_ever(states: Iterable[State]) -> str | None:
    """Why one of these would wait for ever, and what to do: ``it would wait for ever: PartitionConfig; lower …``; None: none would."""
    held = (one.reason for one in states if one.waiting and one.reason in HOPELESS)
    return next((f"{EVER}{reason}; {HOPELESS[reason]}" for reason in held), None)
