"""Ranks that somebody else has started: ``mpirun scalelab train``, ``srun``, ``torchrun``. They find each other by themselves."""
