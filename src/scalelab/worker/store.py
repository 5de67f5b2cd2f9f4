"""One text from the first rank to all, through the store that torchrun's agent keeps for its ranks."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore

PATIENCE = timedelta(seconds=120)
"""of a rank, for the first one to have started"""


def exchange(key: str, said: str, answer: str) -> int:
    """Set ``key`` where something is ``said``, else wait for it; the file ``answer`` gets its text."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=PATIENCE)
    if said:
        store.set(key, said)
    Path(answer).write_text(store.get(key).decode())
    return 0
