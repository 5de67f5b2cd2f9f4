"""A cluster for tests, on one machine, of real parts: network namespaces as hosts, sshd and Slurm in them. See docs/test-cluster.md."""
