"""DeepSpeed as a library: imported quietly, for the rank's device, with nothing to compile."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import torch

KERNELS = ("deepspeed_shm_comm",)
"""kernels that DeepSpeed would compile at the first start (a minute, and a stale lock hangs all later ones) and that no training uses"""


def start(device: torch.device) -> Any:
    """The module ``deepspeed``, set to the kind of ``device``: a fork server may have imported it for another."""
    os.environ["DS_ACCELERATOR"] = device.type
    if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) < int(os.environ.get("WORLD_SIZE", 1)):
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(compiled_here()))
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import deepspeed
    from deepspeed.accelerator import get_accelerator, set_accelerator

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if get_accelerator().device_name() not in (device.type, str(device)):
        set_accelerator(_accelerator(device))
    for name in KERNELS:
        deepspeed.ops.__compatible_ops__[name] = False
    return deepspeed


def compiled_here() -> Path:
    """Where this host keeps what it compiles, which other hosts that share its home must neither use, with other processors, nor lock."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "torch_extensions" / socket.gethostname() / f"torch{torch.__version__}"


def computes_half(device: str) -> bool:
    """Whether DeepSpeed trains in float16 on this kind of device."""
    return bool(_accelerator(torch.device(device)).is_fp16_supported())


def _accelerator(device: torch.device) -> Any:
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
    from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator

    return {"cpu": CPU_Accelerator, "cuda": CUDA_Accelerator}[device.type]()
