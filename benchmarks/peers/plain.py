"""Plain PyTorch: DistributedDataParallel, DistributedSampler, DataLoader and torchvision's transforms, as in the tutorials."""

from __future__ import annotations

import protocol
import torch
from model import basic_cnn
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from transforms import Augmented


def main() -> None:
    given = protocol.arguments()
    protocol.start_process_group()
    torch.manual_seed(given.seed)
    model = DistributedDataParallel(basic_cnn(given.channels_last))
    optimizer = torch.optim.SGD(model.parameters(), lr=given.learning_rate, momentum=protocol.MOMENTUM)
    data = Augmented(given.images, given.labels)
    sampler: DistributedSampler[tuple[Tensor, int]] = DistributedSampler(data, seed=given.seed, drop_last=True)
    loader = DataLoader(
        data, given.batch, sampler=sampler, num_workers=given.loaders, drop_last=True, persistent_workers=given.loaders > 0
    )
    batches = protocol.endless(loader, sampler.set_epoch)

    def step() -> Tensor:
        images, labels = next(batches)
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    protocol.run("plain", given, step)


if __name__ == "__main__":
    main()
