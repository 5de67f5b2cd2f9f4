"""Options of sbatch that are scalelab's own, and what a time says."""

from __future__ import annotations

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.slurm.options import limit, refuse_own, stays


@pytest.mark.parametrize(
    ("arg", "flag"),
    [
        ("--nodes=4", "say --nodes"),
        ("-N4", "say --nodes"),
        ("-N 4", "say --nodes"),
        ("--ntasks-per-socket=2", "leave it out"),
        ("--arr=0-3", "leave it out"),
        ("--output", "leave it out"),
        ("--signal=TERM@9", "say --stop-seconds"),
        ("--wrap=echo", "leave it out"),
    ],
)
def test_what_contradicts_the_script_is_refused(arg: str, flag: str) -> None:
    with pytest.raises(ScalelabError, match=flag):
        refuse_own(["--exclusive", arg])


def test_what_scalelab_has_no_say_in_is_the_users() -> None:
    refuse_own(
        ["--gpus=2", "--nodelist=h1", "-w", "h1", "--time-min=5", "--no-requeue", "--mem=4G", "--gres=gpu:a100:4", "-C", "x"]
    )


def test_a_job_that_is_not_to_be_requeued() -> None:
    assert stays(["--no-requeue"])
    assert stays(["--no-req"])
    assert not stays(["--no-kill", "--requeue"])


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("1", 60), ("0:30", 60), ("90:00", 5400), ("1:00:01", 3660), ("1-12", 129600), ("1-0:1", 86460), ("1-0:0:1", 86460),
        ("0", None), ("UNLIMITED", None), ("soon", None), ("", None),
    ],
)  # fmt: skip
def test_a_time_as_sbatch_has_it(time: str, seconds: float | None) -> None:
    assert limit(time) == seconds
