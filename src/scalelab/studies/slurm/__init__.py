"""A study as Slurm jobs: an array for each size of job, a training in each of its tasks, and a last job that makes the report.

arrays.py      which trainings make which job, and how large it is
login.py       the launcher that plans on a login node, and trains nothing
submitting.py  the scripts in the study's folder, and sbatch
kept.py        what was submitted: slurm/jobs.json
task.py        what a task of an array runs: one training
concluding.py  from the records that there are to findings; Slurm's reasons for those that there are not
"""
