"""Where a command runs: here, over hosts, on Slurm, or inside a world that mpirun, srun or torchrun has started."""
