"""Lightning Fabric, as its documentation shows: ``setup`` for the model and the optimizer, ``setup_dataloaders``."""

from __future__ import annotations

import protocol
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy
from model import basic_cnn
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transforms import Augmented


def main() -> None:
    given = protocol.arguments()
    torch.set_num_threads(1)
    strategy = DDPStrategy(process_group_backend="gloo")
    fabric = Fabric(accelerator="cpu", devices=given.world, strategy=strategy, plugins=TorchElasticEnvironment())
    fabric.launch()
    if fabric.world_size != given.world:
        raise RuntimeError(f"Fabric made {fabric.world_size} processes of {given.world}")
    fabric.seed_everything(given.seed, verbose=False)
    model = basic_cnn(given.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=given.learning_rate, momentum=protocol.MOMENTUM)
    model, optimizer = fabric.setup(model, optimizer)
    data = Augmented(given.images, given.labels)
    loader = fabric.setup_dataloaders(
        DataLoader(
            data, given.batch, shuffle=True, num_workers=given.loaders, drop_last=True, persistent_workers=given.loaders > 0
        )
    )
    batches = protocol.endless(loader, lambda epoch: None)  # Fabric tells the sampler itself

    def step() -> Tensor:
        images, labels = next(batches)
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        fabric.backward(loss)
        optimizer.step()
        return loss.detach()

    protocol.run("fabric", given, step)


if __name__ == "__main__":
    main()
