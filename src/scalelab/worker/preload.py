"""What the fork server imports before it forks: everything that any training needs. Importing must compute nothing."""

import numpy
import numpy.ma  # the first median imports it
import pyarrow.parquet
import safetensors.torch
import tensorboard.summary.writer.event_file_writer
import torch
import torch._dynamo  # the optimizers import it at their first step
import torch.distributed.checkpoint.state_dict
import torch.distributed.fsdp
import torch.distributed.optim
import torch.distributed.tensor
import torch.profiler
import torch.utils.flop_counter
import yaml

import scalelab.strategies.ddp
import scalelab.strategies.single
import scalelab.strategies.zero1
import scalelab.strategies.zero2
import scalelab.strategies.zero3
import scalelab.worker.main
import scalelab.worker.prepare

__all__ = ["numpy", "pyarrow", "safetensors", "scalelab", "tensorboard", "torch", "yaml"]
