"""``python -m scalelab.launch.slurm.rank RUN/spec.yaml``: one rank, as srun starts it: placed by Slurm's variables.

It becomes what every rank is, ``python -m scalelab.worker``, after torchrun's variables were made from Slurm's.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping

from scalelab.launch import environments
from scalelab.measure.interfaces import INTERFACES, leading_to

SECOND = "SCALELAB_SECOND_HOST"
"""variable: the job's second host, by name; empty where it has one"""


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables of this process, and the interface that leads to the first rank's host where nobody said another.

    From that host itself it is the one that leads to the second: many name themselves 127.0.1.1 in their /etc/hosts.
    """
    found = environments.translated("slurm", environ)
    first = environ.get("SLURM_NODEID") == "0"
    interface = leading_to((environ.get(SECOND) if first else None) or environ.get("MASTER_ADDR", ""))
    return found | ({name: interface for name in INTERFACES if name not in environ} if interface else {})


def main(spec_file: str) -> int:
    """The rank; its exit status."""
    os.environ.update(variables(os.environ))
    worker = importlib.import_module("scalelab.worker.main")  # by name: no launcher imports torch
    return int(worker.rank(spec_file))


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a failed rank must not wait for its peers in the interpreter's exit
