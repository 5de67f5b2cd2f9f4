"""Environments of processes as they were found: what a launcher sets, on one of its ranks. Of Slurm 22.05 (Debian), Open MPI 5.0.11,
MPICH 5.0.2, torch 2.15; without what does not tell a rank from another one.
"""

from __future__ import annotations

JOB = {
    "SLURM_CLUSTER_NAME": "test", "SLURM_JOB_ID": "2", "SLURM_JOB_NODELIST": "h[1-2]", "SLURM_NODELIST": "h[1-2]", "SLURM_NNODES": "2",
    "SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_TASKS_PER_NODE": "3,1",
}  # fmt: skip
BATCH = {**JOB, "SLURMD_NODENAME": "h1", "SLURM_GTIDS": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_PROCID": "0"}
"""a script that sbatch runs: it has a rank, and is no step"""
SALLOC = JOB
"""a shell of salloc"""
STEP = {
    **JOB, "SLURMD_NODENAME": "h2", "SLURM_GTIDS": "3", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_PROCID": "3",
    "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "h[1-2]", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "3,1", "SLURM_LAUNCH_NODE_IPADDR": "10.77.0.10",
}  # fmt: skip
"""srun -N2 -n4"""
INTERACTIVE = {
    **JOB, "SLURMD_NODENAME": "h1", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NODELIST": "h1", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1",
}  # fmt: skip
"""salloc -N2 -n4, where LaunchParameters=use_interactive_step: srun --interactive --preserve-env --pty bash"""
STEP_PMIX = {
    **STEP, "SLURM_MPI_TYPE": "pmix", "PMIX_NAMESPACE": "slurm.pmix.2.0", "PMIX_RANK": "3", "PMIX_HOSTNAME": "h2",
    "SLURM_PMIX_MAPPING_SERV": "(vector,(0,1,3),(1,1,1))",
}  # fmt: skip
"""srun -N2 -n4 --mpi=pmix"""
STEP_PMI2 = {**STEP, "SLURM_MPI_TYPE": "pmi2", "PMI_FD": "10", "PMI_JOBID": "3.0", "PMI_RANK": "3", "PMI_SIZE": "4"}
"""srun -N2 -n4 --mpi=pmi2"""
STEP_OF_ONE = {
    **STEP, "SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "1", "SLURM_NPROCS": "1", "SLURM_STEP_NODELIST": "h1",
    "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1",
}  # fmt: skip
"""srun -n1 --pty bash"""
OPENMPI = {
    "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_NODE_RANK": "0", "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_UNIVERSE_SIZE": "4", "PMIX_NAMESPACE": "prterun-h0-204@1", "PMIX_RANK": "1", "PMIX_HOSTNAME": "h2",
}  # fmt: skip
"""mpirun -H h1,h2"""
OPENMPI_IN_SLURM = {**STEP, **OPENMPI, "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
"""salloc -N2 mpirun: Slurm's variables are those of mpirun's own daemon"""
HYDRA = {"MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1", "PMI_FD": "11", "PMI_HOSTNAME": "h2", "PMI_RANK": "3", "PMI_SIZE": "4"}
"""mpiexec -hosts h1,h2 -ppn 2, of MPICH"""
HYDRA_IN_SLURM = {
    **STEP,
    **HYDRA,
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_EXTERNAL_LAUNCHER": "1",
}
"""salloc -N2 mpiexec: one daemon a node, two ranks each"""
PRTERUN = {"PMIX_NAMESPACE": "prterun-vm-29596@1", "PMIX_RANK": "0", "PMIX_HOSTNAME": "vm", "PRTE_LAUNCHED": "1"}
"""prterun, which is mpirun without Open MPI"""
TORCHRUN = {
    "LOCAL_RANK": "1", "RANK": "3", "GROUP_RANK": "1", "ROLE_RANK": "3", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "2", "ROLE_WORLD_SIZE": "4", "MASTER_ADDR": "h1", "MASTER_PORT": "29500", "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "0", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
TORCHRUN_IN_SLURM = {**STEP, **TORCHRUN, "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
"""srun -N2 torchrun"""
