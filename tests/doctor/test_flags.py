"""What `scalelab doctor` refuses before it looks at anything."""

from __future__ import annotations

import pytest

from scalelab.cli import doctor
from scalelab.errors import ScalelabError


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--hosts", "h1", "--slurm"], "--hosts and --slurm: one of the two"),
        (["--nodes", "2"], "--nodes: means something with --slurm only"),
        (["--slurm", "--nodes", "0"], "--nodes 0: expected a whole number, at least 1"),
        (["--env", "A=1"], "--env: means something with --hosts only"),
        (["--slurm", "--ssh-arg=-4"], "--ssh-arg: means something with --hosts only"),
        (
            ["--hosts", "h1,h2", "--master-port", "70000"],
            "--master-port 70000: expected a whole number, at least 1, at most 65,535",
        ),
    ],
)
def test_a_flag_that_means_nothing_is_refused(words: list[str], told: str) -> None:
    with pytest.raises(ScalelabError, match=f"^{told}"):
        doctor.run(words, debug=False)
