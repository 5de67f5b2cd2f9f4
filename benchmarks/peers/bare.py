"""Not a peer but a bound: forward, backward and optimizer of scalelab's model, on one batch, with no data and no bookkeeping."""

from __future__ import annotations

import gc
import itertools

import protocol
import torch
from memory import keep_memory
from tuned import CropFlip, trainer

from scalelab.models.basic_cnn import build


def main() -> None:
    keep_memory()
    given = protocol.arguments()
    protocol.start_process_group()
    torch.manual_seed(given.seed)
    model = build(10, (3, 32, 32)).to(memory_format=torch.channels_last)
    first = next(CropFlip(given).batches())
    step = trainer(given, model, itertools.repeat(first))
    gc.freeze()
    gc.disable()
    protocol.run("bare", given, step)


if __name__ == "__main__":
    main()
