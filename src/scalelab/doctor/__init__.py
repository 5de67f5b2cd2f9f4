"""What is fit for training here, and what is not, each with its fix: this machine, hosts over ssh, nodes of Slurm."""
