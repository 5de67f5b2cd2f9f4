"""Slurm, by its own programs: sbatch, squeue, sacct, scontrol, scancel, srun. No torch, no daemon of ours, nothing kept but files.

For whoever has jobs to run (trainings, studies, sweeps):

    request.Request     what a job asks Slurm for: nodes, tasks, CPUs, GPUs, partition, time, …: the ``#SBATCH`` lines
    script.Script       a readable batch script of a request and commands; ``text()``; quoted, so that any path may stand in it
    submit.submit       sbatch: (script's path, dependency, array) → the job's id, or Slurm's own words as an error
    jobs.states         what Slurm knows of jobs: one squeue and one sacct at most, however many there are; works without sacct
    jobs.cancel         scancel
    hopeless.for_ever   why a job would wait for ever, and what to do

The parts of a training:

    queued.py           the run's folder, its record and its script, before the job exists; taken away again where sbatch refuses
    job.py              the program that the script runs: ranks by srun, checkpoint on a signal, requeue, resume, the record closed
    allocation.py       the ``Launcher`` inside a job
    rank.py             what srun starts for each rank: torchrun's variables from Slurm's
    settling.py         records of jobs that ended without a last word (cancelled in the queue, killed)
"""
