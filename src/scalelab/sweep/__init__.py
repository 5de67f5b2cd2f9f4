"""Sweeps: any program over many values of its arguments; here, over hosts, or as a Slurm array."""
