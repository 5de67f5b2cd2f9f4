"""Engine horovod: data parallelism with Horovod's own all-reduce in place of torch's."""
