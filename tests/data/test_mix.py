"""The hash behind orders and augmentation: the same in Python and in torch, and the same for ever."""

from __future__ import annotations

import torch

from scalelab.data import epoch_order
from scalelab.data.augment import sample_hash
from scalelab.data.mix import mix, mix_each, signed

SOME = [0, 1, 2, (1 << 31) + 5, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


def test_torch_hashes_as_python_does() -> None:
    found = mix_each(torch.tensor([signed(value) for value in SOME]))
    assert found.tolist() == [signed(mix(value)) for value in SOME]


def test_the_hash_is_splitmix64() -> None:
    golden = 0x9E3779B97F4A7C15  # the first outputs of the published generator, seeded with 0
    assert [mix(golden * n % (1 << 64)) for n in (1, 2, 3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_a_seed_means_the_same_in_every_version() -> None:
    assert epoch_order(5, 0, 1).tolist() == [3, 4, 1, 0, 2]
    assert epoch_order(5, 12345, 3).tolist() == [4, 0, 1, 2, 3]
    assert sample_hash(12345, 3, torch.tensor([0, 7])).tolist() == [289695129179503628, 2706880412735117965]
