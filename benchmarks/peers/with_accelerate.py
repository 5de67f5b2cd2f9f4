"""Hugging Face Accelerate, as its documentation shows: ``prepare`` for the model, the optimizer and the DataLoader."""

from __future__ import annotations

import protocol
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from model import basic_cnn
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transforms import Augmented


def main() -> None:
    given = protocol.arguments()
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    if accelerator.num_processes != given.world:
        raise RuntimeError(f"Accelerate made {accelerator.num_processes} processes of {given.world}")
    set_seed(given.seed)
    torch.set_num_threads(1)  # Accelerate may have set its own
    model = basic_cnn(given.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=given.learning_rate, momentum=protocol.MOMENTUM)
    data = Augmented(given.images, given.labels)
    loader = DataLoader(
        data, given.batch, shuffle=True, num_workers=given.loaders, drop_last=True, persistent_workers=given.loaders > 0
    )
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    batches = protocol.endless(loader, loader.set_epoch)

    def step() -> Tensor:
        images, labels = next(batches)
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        accelerator.backward(loss)
        optimizer.step()
        return loss.detach()

    protocol.run("accelerate", given, step)


if __name__ == "__main__":
    main()
