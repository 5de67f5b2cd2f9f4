"""The collectives of a step by themselves: which can be done, and which must not, for want of memory."""

from __future__ import annotations

import torch

from scalelab.comm.bare import Call, too_large, unknown

MIB = 1 << 20


def call(operator: str, *elements: int, dtype: torch.dtype = torch.float32) -> Call:
    return Call(operator, tuple((n, dtype, torch.device("cpu")) for n in elements), None)


def test_what_would_fill_the_memory_is_not_done_at_once() -> None:
    calls = [call("_allgather_base_", MIB, MIB // 2), call("allreduce_", MIB, dtype=torch.bfloat16)]  # 4 + 2 + 2 MiB
    assert too_large(calls, 16 * MIB) is None
    said = "all collectives of a step at once would take 8 MiB, more than half of the 15 MiB that are free"
    assert too_large(calls, 16 * MIB - 1) == said
    assert too_large([], 0) is None


def test_what_is_not_known_is_named() -> None:
    assert unknown([call("allreduce_", 1)]) is None
    assert unknown([call("allreduce_", 1), call("send", 1)]) == "the step's send can't be done by themselves"
