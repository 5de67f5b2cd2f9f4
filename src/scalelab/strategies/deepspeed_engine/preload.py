"""What the fork server imports before it forks a worker of this engine; importing computes nothing and starts no thread.

DeepSpeed imports the second and third only when an optimizer is made, and with them torch's compiler: seconds, on each rank.
"""

import deepspeed
import deepspeed.runtime.zero.muon.muon_optimizer
import deepspeed.runtime.zero.stage3

import scalelab.strategies.deepspeed_engine.zero

__all__ = ["deepspeed", "scalelab"]
