"""Horovod's all-reduce as an operator of torch: what passes the dispatcher is counted and silenced like any other collective."""

from __future__ import annotations

import time

import horovod.torch as hvd
import torch
from torch import Tensor

from scalelab.comm.instruments import HOROVOD, NOTHING_SENT
from scalelab.errors import RunError

WAIT = 50e-6
"""seconds between two looks at a reduction; Horovod's own wait spins, on the core that the reduction needs"""


def _begin(value: Tensor, name: str) -> int:
    handle: int = hvd.allreduce_async_(value, name=name, op=hvd.Sum, prescale_factor=1 / hvd.size())
    return handle


OPERATORS = torch.library.Library(HOROVOD, "DEF")
"""keeps the operator registered as long as it lives"""
OPERATORS.define("allreduce_(Tensor(a!) value, str name) -> int")
OPERATORS.impl("allreduce_", _begin, "CompositeExplicitAutograd")


def begin(value: Tensor, name: str) -> int:
    """Begin to average a contiguous tensor over all ranks, in place; the handle to wait for. Every rank must name it alike.

    It is divided before it is added up, so that fp16 can't overflow where the average would not.
    """
    handle: int = getattr(torch.ops, HOROVOD).allreduce_(value, name)
    return handle


def wait(handle: int, timeout: float) -> None:
    """Until the average is there. Raises RunError when a rank is gone, or did not hand in its part for ``timeout`` seconds."""
    if handle == NOTHING_SENT:
        return
    patience = time.monotonic() + timeout  # Horovod itself only warns, while the silent rank's thread is alive
    while not hvd.poll(handle):
        if time.monotonic() > patience:
            raise RunError(f"a worker has not handed in its gradients for {timeout:g} seconds (--timeout)")
        time.sleep(WAIT)
    try:
        hvd.synchronize(handle)
    except hvd.HorovodInternalError as error:
        raise RunError(f"Horovod's all-reduce: {error}") from None
