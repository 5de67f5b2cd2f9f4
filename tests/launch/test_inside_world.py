"""Which rank a process is, by the variables of what started it."""

from __future__ import annotations

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.inside import world
from scalelab.launch.inside.world import World
from tests.launch import captured

PLACES = {
    "srun": (captured.STEP, ("slurm", 3, 4, 0, 1)),
    "srun --mpi=pmix": (captured.STEP_PMIX, ("slurm", 3, 4, 0, 1)),
    "srun --mpi=pmi2": (captured.STEP_PMI2, ("slurm", 3, 4, 0, 1)),
    "Open MPI": (captured.OPENMPI, ("openmpi", 1, 2, 0, 1)),
    "Open MPI in Slurm": (captured.OPENMPI_IN_SLURM, ("openmpi", 1, 2, 0, 1)),
    "MPICH": (captured.HYDRA, ("mpich", 3, 4, 1, 2)),
    "MPICH in Slurm": (captured.HYDRA_IN_SLURM, ("mpich", 3, 4, 1, 2)),
    "torchrun": (captured.TORCHRUN, ("torchrun", 3, 4, 1, 2)),
    "torchrun in Slurm": (captured.TORCHRUN_IN_SLURM, ("torchrun", 3, 4, 1, 2)),
}
NONE = {
    "nothing": {}, "a batch script": captured.BATCH, "a shell of salloc": captured.SALLOC, "a step of one task": captured.STEP_OF_ONE,
    "the interactive step of salloc": captured.INTERACTIVE,
    "mpirun -n 1": {**captured.OPENMPI, "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
    "torchrun of one in a step of four": {**captured.STEP, **captured.TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"},
    "half of torchrun's variables": {"RANK": "1", "WORLD_SIZE": "2"},
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_rank_is_known_by_its_cluster(name: str) -> None:
    environ, expected = PLACES[name]
    found = world.found(environ)
    assert found is not None
    assert (found.cluster, found.rank, found.size, found.local_rank, found.local_size) == expected


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_world_of_several_is_a_training_of_its_own(name: str) -> None:
    assert world.found(NONE[name]) is None


def test_ranks_of_one_start_have_the_same_token_and_those_of_another_have_not() -> None:
    others = [
        {**captured.STEP, "SLURM_PROCID": "1"},
        {**captured.STEP, "SLURM_STEP_ID": "1"},
        {**captured.STEP, "SLURM_JOB_ID": "9"},
    ]
    own, same, step, job = (found.token for environ in [captured.STEP, *others] if (found := world.found(environ)))
    assert own == same
    assert len({own, step, job}) == 3


def test_a_step_is_named_as_squeue_lists_it() -> None:
    assert world.step(captured.STEP) == "2.0"
    assert world.step({**captured.STEP, "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "7"}) == "1_7.0"
    assert world.step({**captured.STEP, "SLURM_HET_SIZE": "2"}) is None


def test_prterun_tells_no_number_of_ranks_and_is_refused() -> None:
    with pytest.raises(ScalelabError, match=r"PMIX_RANK is set, .* start with mpirun or srun"):
        world.found(captured.PRTERUN)


def test_a_leftover_that_can_not_be_is_named() -> None:
    with pytest.raises(ScalelabError, match="OMPI_COMM_WORLD_RANK=5: there are 2 ranks; unset it"):
        world.found({**captured.OPENMPI, "OMPI_COMM_WORLD_RANK": "5"})
    with pytest.raises(ScalelabError, match="WORLD_SIZE is 'two', no whole number"):
        world.found({**captured.OPENMPI, "OMPI_COMM_WORLD_SIZE": "two"})


def test_two_mpis_that_disagree_are_told() -> None:
    said = world.disagreement({**captured.OPENMPI, **captured.HYDRA})
    assert said is not None
    assert said.startswith("openmpi's variables say rank 1 of 2, mpich's variables say rank 3 of 4")
    assert world.disagreement(captured.OPENMPI_IN_SLURM) is None
    assert world.disagreement(captured.STEP_PMI2) is None


def test_one_host_is_known_where_all_ranks_are_local() -> None:
    assert World("mpich", 0, 2, 0, 2, "").one_host
    assert not World("mpich", 0, 2, 0, 1, "").one_host
    assert not World("slurm", 0, 2, 0, None, "1").one_host
