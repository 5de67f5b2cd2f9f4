"""What every data set promises."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from scalelab import data
from scalelab.data.cifar import CIFAR10
from scalelab.data.synthetic_clips import velocities
from scalelab.spec import Spec

PUBLISHED = ("cifar10", "cifar100", "svhn")
MADE = ("synthetic", "synthetic-clips")
"""make as much as is asked for"""


@pytest.fixture(params=[*data.DATA, *data.AT_PATH, "user"])
def spec(request: pytest.FixtureRequest, tmp_path: Path, hub, pictures) -> Spec:
    """A spec of every data set in the registry, of every kind of path, and of a user's own."""
    if request.param in PUBLISHED:
        return Spec(data=request.param, data_dir=str(hub()))
    if request.param == "parquet":
        return Spec(data=f"parquet:{hub()}")
    if request.param == "folder":
        return Spec(data=f"folder:{pictures()}")
    if request.param == "user":
        (tmp_path / "mine.py").write_text(
            "import torch\ndef f():\n g = torch.Generator().manual_seed(0)\n"
            " x = torch.randint(0, 256, (30, 2, 9, 7), dtype=torch.uint8, generator=g)\n"
            " return (x[:20], torch.arange(20) % 3), (x[20:], torch.arange(10) % 3)\n"
        )
        return Spec(data=f"{tmp_path}/mine.py:f")
    # An odd size: pixels that are no whole number of what torch draws at a time.
    return Spec(data=request.param, image_size=11)


def test_images_are_uint8_and_labels_lie_within_the_classes(spec):
    dataset = data.load(spec)
    for split in (dataset.train, dataset.test):
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        assert split.images.is_contiguous()
        assert len(split.images) == len(split.labels) == len(split) > 0
        assert split.labels.min() >= 0
        assert split.labels.max() < dataset.num_classes == len(dataset.class_names)
    *frames, channels, height, width = dataset.shape
    assert dataset.train.images.shape[1:] == dataset.test.images.shape[1:] == (*frames, height, width, channels)
    assert len(dataset.mean) == len(dataset.std) == channels


def test_two_loads_give_the_same_bytes(spec):
    first, second = data.load(spec), data.load(spec)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)


def test_limits_keep_the_first_samples(spec):
    whole = data.load(spec)
    part = data.load(_with(spec, train_limit=7, test_limit=3))
    assert (len(part.train), len(part.test)) == (7, 3)
    assert torch.equal(part.train.images, whole.train.images[:7])
    assert torch.equal(part.test.labels, whole.test.labels[:3])
    if spec.data not in MADE and ":" not in spec.data:  # these take their statistics from what is asked for
        assert (part.mean, part.std, part.num_classes) == (whole.mean, whole.std, whole.num_classes)


def test_a_limit_above_the_size_keeps_all(spec):
    if spec.data in MADE:
        assert len(data.load(_with(spec, train_limit=3000)).train) == 3000
    else:
        assert len(data.load(_with(spec, train_limit=10**9)).train) == len(data.load(spec).train)


def test_normalised_with_its_own_statistics_the_training_set_has_mean_0_and_deviation_1(spec):
    dataset = data.load(spec)
    if spec.data in PUBLISHED:  # random pixels here; test_real_cifar10 compares the constants with the real images
        if spec.data == "cifar10":
            assert (dataset.mean, dataset.std) == CIFAR10.statistics
        return
    batches = data.Batches(dataset.train, dataset.mean, dataset.std, "none", 0, torch.device("cpu"), torch.float64)
    images, _ = batches.fetch(torch.arange(len(dataset.train)), 0, train=True)
    images = images.flatten(0, -4)  # the frames of clips are so many images
    assert images.mean((0, 2, 3)).abs().max() < 1e-9
    assert (images.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-9


def test_what_is_always_in_memory_can_not_be_streamed(refused):
    with refused("--stream always: data 'digits' is always in memory", "folder:PATH"):
        data.load(Spec(data="digits", stream="always"))


def test_digits_are_split_evenly_over_the_classes():
    dataset = data.load(Spec(data="digits"))
    assert (len(dataset.train), len(dataset.test), dataset.shape) == (1437, 360, (1, 8, 8))
    assert dataset.test.labels.bincount().min() >= 34
    assert dataset.train.labels[:100].bincount(minlength=10).min() >= 8
    assert dataset.train.images.max() == 255


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    dataset = data.load(Spec(data="digits"))
    ours = torch.cat([dataset.train.images, dataset.test.images]).reshape(1797, 64)
    numbers = torch.cat([dataset.train.labels, dataset.test.labels])
    expected = np.column_stack([np.round(pixels * 255 / 16), labels]).astype(np.int64)
    found = np.column_stack([ours.numpy(), numbers.numpy()]).astype(np.int64)
    assert np.array_equal(expected[np.lexsort(expected.T)], found[np.lexsort(found.T)])


def test_synthetic_data_has_the_size_and_classes_asked_for():
    dataset = data.load(Spec(data="synthetic", image_size=17, classes=5))
    assert (dataset.shape, dataset.num_classes) == ((3, 17, 17), 5)
    assert (len(dataset.train), len(dataset.test)) == (2048, 512)


def test_synthetic_data_depends_on_the_seed():
    one, two = (data.load(Spec(data="synthetic", seed=seed, train_limit=4)) for seed in (1, 2))
    assert not torch.equal(one.train.images, two.train.images)


def test_synthetic_classes_can_be_learnt_from_the_training_set():
    """The nearest class mean, taken from the training images, names most test images."""
    dataset = data.load(Spec(data="synthetic"))
    train, test = (split.images.double().flatten(1) for split in (dataset.train, dataset.test))
    means = torch.stack([train[dataset.train.labels == k].mean(0) for k in range(10)])
    assert (torch.cdist(test, means).argmin(1) == dataset.test.labels).double().mean() > 0.9


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list(refused):
    with refused("unknown data 'cifar'", "did you mean 'cifar10'", "digits", "synthetic", "file.py:function"):
        data.load(Spec(data="cifar"))


@pytest.mark.skipif("CIFAR10_DIR" not in os.environ, reason="CIFAR10_DIR names no folder with the real CIFAR-10")
def test_real_cifar10():
    dataset = data.load(Spec(data="cifar10", data_dir=os.environ["CIFAR10_DIR"]))
    assert (len(dataset.train), len(dataset.test), dataset.shape) == (50_000, 10_000, (3, 32, 32))
    assert dataset.train.labels.bincount().tolist() == [5000] * 10
    sample = dataset.train.images[:5000].double() / 255
    assert (sample.mean((0, 1, 2)) - torch.tensor(dataset.mean)).abs().max() < 0.01
    assert (sample.std((0, 1, 2)) - torch.tensor(dataset.std)).abs().max() < 0.01


def _with(spec: Spec, **changes: object) -> Spec:
    return msgspec.structs.replace(spec, **changes)


def test_a_dataset_says_the_shape_that_the_model_gets():
    assert data.load(Spec(data="digits", resize=24)).shape == (1, 24, 24)
    assert data.load(Spec(data="digits", resize=8)).resize is None
    assert data.load(Spec(data="synthetic-clips", frames=3, train_limit=4, test_limit=4, resize=10)).shape == (3, 3, 10, 10)


def test_one_frame_of_a_clip_says_nothing_of_its_class_and_the_turning_all():
    """The grating's angle, by the phase of its structure tensor: from frame to frame it changes by the class's speed."""
    dataset = data.load(Spec(data="synthetic-clips", image_size=32, classes=5, train_limit=100, test_limit=5, frames=6))
    grey = dataset.train.images.double().mean(-1)
    down, right = (grey.diff(dim=axis)[:, :, :31, :31] for axis in (2, 3))
    angle = 0.5 * torch.atan2(2 * (down * right).mean((2, 3)), (right**2 - down**2).mean((2, 3)))  # of the waves, modulo pi
    turned = angle.diff(dim=1)
    speed = 0.5 * torch.atan2(torch.sin(2 * turned).mean(1), torch.cos(2 * turned).mean(1))
    guessed = (speed[:, None] - velocities(5)).abs().argmin(1)
    assert (guessed == dataset.train.labels).double().mean() > 0.9
    # Where it starts is anywhere on the circle: the mean is near its middle.
    first = torch.polar(torch.ones(100, dtype=torch.float64), 2 * angle[:, 0])
    assert torch.stack([first[dataset.train.labels == k].mean() for k in range(5)]).abs().max() < 0.6


@pytest.mark.parametrize("name", ["synthetic", "synthetic-clips"])
def test_made_images_do_not_depend_on_the_number_of_threads(name):
    threads, made = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        made.append(data.load(Spec(data=name, image_size=96, train_limit=64, test_limit=8)).train.images)
    torch.set_num_threads(threads)
    assert torch.equal(*made)
