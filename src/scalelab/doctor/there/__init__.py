"""What runs on the host that is looked at: in this process, in an agent over ssh, in a process that srun started. No torch."""
