"""What srun says of its ranks, in lines that it really wrote."""

from __future__ import annotations

from scalelab.launch.launcher import Process
from scalelab.launch.slurm import srun


def heard(*lines: str) -> list[int | None]:
    """The statuses of four ranks after these lines."""
    processes = [Process(rank) for rank in range(4)]
    for line in lines:
        srun.take_in(line, processes)
    return [process.status for process in processes]


def test_a_rank_that_exits() -> None:
    assert heard("srun: error: h1: task 1: Exited with exit code 3") == [None, 3, None, None]


def test_ranks_that_a_signal_ends() -> None:
    assert heard("srun: error: h2: tasks 2-3: Killed", "srun: error: h1: tasks 0,1: Segmentation fault (core dumped)") == [
        -11, -11, -9, -9,
    ]  # fmt: skip


def test_the_first_word_on_a_rank_stands() -> None:
    assert heard("srun: error: h1: task 0: Killed", "srun: error: h1: task 0: Terminated") == [-9, None, None, None]


def test_other_lines_say_nothing_of_ranks() -> None:
    assert heard("srun: launch/slurm: _step_signal: Terminating StepId=2.0", "srun: forcing job termination") == [None] * 4


def test_why_slurm_ended_it() -> None:
    preempted = "slurmstepd-h1: error: *** JOB 4 ON h1 CANCELLED AT 2026-11-21T20:49:21 DUE TO PREEMPTION ***"
    limit = "slurmstepd-h1: error: *** STEP 4.0 ON h1 CANCELLED AT 2026-11-21T20:49:21 DUE TO TIME LIMIT ***"
    node = "slurmstepd-h1: error: *** JOB 1 ON h1 CANCELLED AT 2026-11-21T21:19:55 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***"
    assert srun.reason([preempted]) == "preempted"
    assert srun.reason([limit]) == "time limit"
    assert srun.reason([preempted.replace("PREEMPTION", "JOB REQUEUE")]) == "requeued by hand"
    assert srun.reason([node]) == "a node was lost"
    assert srun.reason([node, "srun: error: Node failure on h2"]) == "a node was lost: h2"
    assert srun.reason(["slurmstepd-h1: error: *** STEP 2.0 ON h1 CANCELLED AT 2026-11-21T20:49:05 ***"]) is None


def test_a_step_that_can_not_be_made() -> None:
    said = ["srun: error: Unable to create step for job 5: Requested node configuration is not available"]
    assert srun.failure(said) == "Unable to create step for job 5: Requested node configuration is not available"
    assert srun.failure(["srun: error: h1: task 1: Killed"]) is None


def test_a_lost_node_is_named_once() -> None:
    assert srun.reason(["srun: error: Node failure on h2", "srun: error: Node failure on h2"]) == "a node was lost: h2"
