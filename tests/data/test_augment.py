"""Augmented batches: right, and the same bit for bit whoever asks."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from scalelab.data import Batches, Split, augmentation, epoch_order, load
from scalelab.data.augment import padding, sample_hash
from scalelab.spec import Spec

MEAN, STD = (0.4, 0.5, 0.3), (0.25, 0.2, 0.3)
AUGMENTS = ["none", "crop", "flip", "crop+flip"]


def split(count: int = 50, size: tuple[int, int] = (32, 32), channels: int = 3) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (count, *size, channels), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count) % 10)


def batches(data: Split, augment: str, seed: int = 3, dtype: torch.dtype = torch.float32, channels_last: bool = True) -> Batches:
    channels = data.images.shape[-1]
    return Batches(data, (MEAN * 2)[:channels], (STD * 2)[:channels], augment, seed, torch.device("cpu"), dtype, channels_last)


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (9, 13), (40, 1), (1, 5)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_image_is_its_flip_and_shift_by_zero_padding(augment, size, channels):
    """Against one image at a time, written out plainly from the same random bits."""
    data = split(24, size, channels)
    indices = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    images, labels = batches(data, augment, dtype=torch.float64).fetch(indices, 5, train=True)
    assert torch.equal(labels, data.labels[indices])
    mean, std = (torch.tensor((v * 2)[:channels], dtype=torch.float64) for v in (MEAN, STD))
    pads = [padding(extent) for extent in size]
    for image, index, bits in zip(images, indices.tolist(), sample_hash(3, 5, indices).tolist(), strict=True):
        plain = data.images[index]
        if "flip" in augment and bits & 1:
            plain = plain.flip(1)
        if "crop" in augment:
            padded = torch.zeros(size[0] + 2 * pads[0], size[1] + 2 * pads[1], channels, dtype=torch.uint8)
            padded[pads[0] : pads[0] + size[0], pads[1] : pads[1] + size[1]] = plain
            y, x = (bits >> 1 & 0xFFFFFF) % (2 * pads[0] + 1), (bits >> 25 & 0xFFFFFF) % (2 * pads[1] + 1)
            plain = padded[y : y + size[0], x : x + size[1]]
        assert torch.allclose(image.permute(1, 2, 0), (plain.double() / 255 - mean) / std, rtol=0, atol=1e-12)


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 50])
def test_any_split_of_the_indices_gives_the_same_images_bit_for_bit(augment, workers):
    source = batches(split(size=(15, 11)), augment)
    order = epoch_order(50, 3, 2)
    whole, _ = source.fetch(order, 2, train=True)
    for rank in range(workers):
        part, _ = source.fetch(order[rank::workers], 2, train=True)
        assert torch.equal(part, whole[rank::workers])


def test_the_number_of_threads_changes_no_bit():
    source, indices = batches(split(64, (33, 31)), "crop+flip"), torch.arange(64)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(source.fetch(indices, 0, train=True)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_another_process_gives_the_same_images():
    code = (
        "import torch, hashlib; from scalelab.data import *\n"
        "g = torch.Generator().manual_seed(0)\n"
        "s = Split(torch.randint(1, 256, (9, 8, 8, 3), dtype=torch.uint8, generator=g), torch.arange(9))\n"
        "b = Batches(s, (.4, .5, .3), (.25, .2, .3), 'crop+flip', 3, torch.device('cpu'), channels_last=True)\n"
        "print(hashlib.sha256(b.fetch(torch.arange(9), 4, True)[0].numpy().tobytes()).hexdigest())\n"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100).stdout
    images, _ = batches(split(9, (8, 8)), "crop+flip").fetch(torch.arange(9), 4, train=True)
    assert hashlib.sha256(images.numpy().tobytes()).hexdigest() == other.strip()


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 4}])
def test_another_epoch_or_seed_augments_differently(change):
    indices, data = torch.arange(50), split()
    first, _ = batches(data, "crop+flip", seed=3).fetch(indices, 0, train=True)
    other, _ = batches(data, "crop+flip", seed=change.get("seed", 3)).fetch(indices, change.get("epoch", 0), train=True)
    same = sum(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert same <= 3  # one in 162 agrees by chance


def test_evaluation_is_never_augmented():
    source, plain = batches(split(), "crop+flip"), batches(split(), "none")
    assert torch.equal(source.fetch(torch.arange(50), 1, train=False)[0], plain.fetch(torch.arange(50), 1, train=True)[0])


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_layout_and_type_are_those_asked_for(channels_last, dtype):
    images, _ = batches(split(), "crop+flip", dtype=dtype, channels_last=channels_last).fetch(torch.arange(7), 0, train=True)
    assert (images.shape, images.dtype) == ((7, 3, 32, 32), dtype)
    assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_the_layout_changes_no_value():
    one, other = (
        batches(split(), "crop+flip", channels_last=on).fetch(torch.arange(50), 0, train=True)[0] for on in (True, False)
    )
    assert torch.equal(one, other)


def test_offsets_and_flips_are_uniform():
    """Chi-squared over 9 × 9 × 2 outcomes of 162,000 samples; 161 degrees of freedom, 5 deviations."""
    bits = sample_hash(0, 0, torch.arange(162_000))
    outcome = (bits & 1) * 81 + (bits >> 1 & 0xFFFFFF) % 9 * 9 + (bits >> 25 & 0xFFFFFF) % 9
    counts = outcome.bincount(minlength=162).double()
    statistic = float(((counts - 1000) ** 2 / 1000).sum())
    assert abs(statistic - 161) < 5 * (2 * 161) ** 0.5


def test_neighbouring_samples_epochs_and_seeds_are_uncorrelated():
    samples = torch.arange(20_000)
    reference = sample_hash(0, 0, samples) & 1
    for other in (sample_hash(0, 1, samples), sample_hash(1, 0, samples), sample_hash(0, 0, samples + 1)):
        agreement = (reference == (other & 1)).double().mean()
        assert abs(agreement - 0.5) < 0.02


def test_auto_takes_what_suits_the_data_and_a_flag_wins():
    digits = load(Spec(data="digits"))
    assert augmentation(Spec(), digits) == "none"
    assert augmentation(Spec(augment="crop"), digits) == "crop"


def test_the_split_is_not_written_to():
    data = split()
    before = data.images.clone()
    batches(data, "crop+flip").fetch(torch.arange(50), 0, train=True)
    assert torch.equal(data.images, before)


def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch_only():
    orders = {(seed, epoch): epoch_order(1000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    for key, order in orders.items():
        torch.manual_seed(sum(key) + 99)  # the global generator has no say
        assert order.dtype == torch.int64
        assert torch.equal(order.sort().values, torch.arange(1000))
        assert torch.equal(order, epoch_order(1000, *key))
    assert len({tuple(order.tolist()) for order in orders.values()}) == 4


def clips(count: int = 12, frames: int = 3) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (count, frames, 9, 8, 3), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(count) % 4)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_every_frame_of_a_clip_is_augmented_as_an_image_of_its_number_is(augment, channels_last):
    held, indices = clips(), torch.tensor([7, 0, 3])
    found, labels = batches(held, augment, channels_last=channels_last).fetch(indices, 2, train=True)
    assert (found.shape, labels.tolist()) == ((3, 3, 3, 9, 8), [3, 0, 3])
    for frame in range(3):
        alone = Split(held.images[:, frame].contiguous(), held.labels)
        expected, _ = batches(alone, augment, channels_last=channels_last).fetch(indices, 2, train=True)
        assert torch.equal(found[:, frame], expected)


SIZES = [(32, 224), (40, 16), (9, 9)]


def resizing(data: Split, size: int, dtype: torch.dtype = torch.float32) -> Batches:
    return Batches(data, MEAN, STD, "crop+flip", 3, torch.device("cpu"), dtype, channels_last=True, resize=size)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_a_resized_batch_is_pillow_s_image(before, after):
    """Within a level: Pillow's antialiased bilinear is what is named after."""
    data = split(3, (before, before))
    source = Batches(data, (0.0,) * 3, (1.0,) * 3, "none", 0, torch.device("cpu"), torch.float64, resize=after)
    images, _ = source.fetch(torch.arange(3), 0, train=True)
    for image, original in zip(images, data.images, strict=True):
        expected = Image.fromarray(original.numpy()).resize((after, after), Image.Resampling.BILINEAR)
        assert (image.permute(1, 2, 0) * 255 - torch.tensor(np.asarray(expected))).abs().max() <= 1 + 1e-9


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("workers", [2, 3, 12])
def test_resizing_gives_the_same_bits_in_any_batch_and_with_any_threads(before, after, workers):
    source, order = resizing(split(12, (before, before)), after), torch.randperm(12, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    whole, _ = source.fetch(order, 1, train=True)
    try:
        torch.set_num_threads(1 + workers % 2)
        for rank in range(workers):
            part, _ = source.fetch(order[rank::workers], 1, train=True)
            assert torch.equal(part, whole[rank::workers])
    finally:
        torch.set_num_threads(threads)


def test_a_resized_clip_is_its_resized_frames():
    held = clips()
    found, _ = resizing(held, 12).fetch(torch.arange(5), 0, train=True)
    assert found.shape == (5, 3, 3, 12, 12)
    alone = Split(held.images[:, 1].contiguous(), held.labels)
    assert torch.equal(found[:, 1], resizing(alone, 12).fetch(torch.arange(5), 0, train=True)[0])
