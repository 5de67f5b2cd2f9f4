"""What the fork server imports before it forks a worker of this engine. Importing computes nothing and starts no thread.

DeepSpeed imports the modules named below only when an optimizer is made, and with them torch's compiler: seconds, on each rank.
"""

import importlib

import torch

import scalelab.strategies.deepspeed_engine.zero
from scalelab.strategies.deepspeed_engine import runtime

runtime.start(torch.device("cpu"))  # asks no GPU for anything: a fork could not use it any more
for _name in ("deepspeed.runtime.zero.muon.muon_optimizer", "deepspeed.runtime.zero.stage3"):
    importlib.import_module(_name)

__all__ = ["scalelab"]
