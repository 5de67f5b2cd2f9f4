"""Which jobs no waiting helps."""

from scalelab.launch.slurm.hopeless import for_ever
from scalelab.launch.slurm.jobs import State


def test_a_job_that_fits_nowhere_is_told_from_one_that_waits_for_its_turn():
    """And only while it waits: what has ended is no job to give up."""
    assert for_ever([State("7", "PENDING", "Resources"), State("8", "CANCELLED", "PartitionConfig")]) is None
    told = for_ever([State("7", "PENDING", "Priority"), State("8_0", "PENDING", "PartitionConfig")])
    assert told is not None
    assert told.startswith("it would wait for ever: PartitionConfig; lower --cpus-per-task")
