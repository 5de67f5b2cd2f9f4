"""CIFAR-100 and SVHN in the forms they come in; what they share with CIFAR-10 is tested there."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from scalelab import data
from scalelab.data import cifar, known, svhn
from scalelab.data.dataset import silent
from scalelab.data.known import Known, Official
from scalelab.spec import Spec


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def served(set_: Known, url: str, folder: Path) -> Known:
    """``set_`` as if its home page were at ``url``, with what is in ``folder``."""
    return replace(set_, official=tuple(Official(f"{url}/{o.name}", md5(folder / o.name), o.name) for o in set_.official))


@pytest.fixture
def hundred(tmp_path: Path):
    """A cifar-100-python folder; its images and fine labels."""
    folder, generator, made = tmp_path / "to-pack" / "cifar-100-python", np.random.default_rng(0), {}
    folder.mkdir(parents=True)
    for name, count in (("train", 7), ("test", 3)):
        images = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
        fine = [int(k) for k in generator.integers(0, 100, count)]
        made[name] = images, fine
        content = {b"data": images, b"fine_labels": fine, b"coarse_labels": [k // 5 for k in fine]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": []}, protocol=2))
    return folder, made


def assert_holds(dataset, made) -> None:
    images, fine = made["train"]
    assert torch.equal(dataset.train.images.permute(0, 3, 1, 2).flatten(1), torch.from_numpy(images))
    assert dataset.train.labels.tolist() == fine
    assert dataset.test.labels.tolist() == made["test"][1]
    assert dataset.num_classes == 100


def test_cifar100_is_downloaded_and_its_fine_labels_taken(hundred, server, tmp_path):
    url, folder = server
    with tarfile.open(folder / "cifar-100-python.tar.gz", "w:gz") as tar:
        tar.add(hundred[0], "cifar-100-python")
    spec = Spec(data="cifar100", data_dir=str(tmp_path / "new"))
    assert_holds(known.load(served(cifar.CIFAR100, url, folder), spec, silent), hundred[1])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cifar-100-python.tar.gz"]


@pytest.mark.parametrize("up", [0, 1])
def test_cifar100_is_read_from_its_extracted_folder(hundred, up):
    folder, made = hundred
    assert_holds(data.load(Spec(data="cifar100", data_dir=str([folder, folder.parent][up]))), made)


def test_cifar100_in_parquet_prefers_the_fine_labels(hub):
    dataset = data.load(Spec(data="cifar100", data_dir=str(hub(label="fine_label"))))
    assert dataset.train.labels.tolist() == [k % 10 for k in range(12)]


def test_a_batch_of_cifar10_is_not_taken_for_cifar100(hundred, refused):
    folder, _ = hundred
    (folder / "train").write_bytes(pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1]}, protocol=2))
    with refused("train", "'fine_labels'", "CIFAR-100"):
        data.load(Spec(data="cifar100", data_dir=str(folder)))


def test_the_classes_of_cifar100_are_a_hundred_in_order():
    assert len(set(cifar.CIFAR100.classes)) == 100
    assert list(cifar.CIFAR100.classes) == sorted(cifar.CIFAR100.classes)


@pytest.fixture
def numbers(tmp_path: Path):
    """A folder with SVHN's two files; arguments replace what the training file holds."""

    def make(**train: np.ndarray) -> Path:
        folder, generator = tmp_path / "numbers", np.random.default_rng(0)
        folder.mkdir(exist_ok=True)
        for name, count in (("train", 6), ("test", 4)):
            held = {
                "X": generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8),
                "y": np.array([[10, 1, 2, 3, 9, 10][k] for k in range(count)], dtype=np.uint8)[:, None],
            }
            savemat(folder / f"{name}_32x32.mat", held | train if name == "train" else held)
        return folder

    return make


def from_folder(folder: Path, given: Path | None = None):
    return known.load(served(svhn.SVHN, "http://127.0.0.1:9", folder), Spec(data="svhn", data_dir=str(given or folder)), silent)


def test_svhn_gives_its_images_with_ten_for_zero(numbers):
    from scipy.io import loadmat

    folder = numbers()
    dataset = from_folder(folder)
    assert dataset.train.labels.tolist() == [0, 1, 2, 3, 9, 0]
    assert np.array_equal(dataset.train.images.numpy(), loadmat(folder / "train_32x32.mat")["X"].transpose(3, 0, 1, 2))
    assert (len(dataset.test), dataset.shape, dataset.augment) == (4, (3, 32, 32), "crop")


def test_what_is_missing_of_svhn_is_downloaded(numbers, server, tmp_path):
    url, folder = server
    shutil.copytree(numbers(), folder, dirs_exist_ok=True)
    target = tmp_path / "half"
    target.mkdir()
    shutil.copy(folder / "train_32x32.mat", target)
    dataset = known.load(served(svhn.SVHN, url, folder), Spec(data="svhn", data_dir=str(target)), silent)
    assert len(dataset.test) == 4
    assert sorted(path.name for path in target.iterdir()) == ["test_32x32.mat", "train_32x32.mat"]


def test_a_truncated_file_of_svhn_is_refused_by_its_checksum(numbers, refused):
    folder = numbers()
    (folder / "test_32x32.mat").write_bytes((folder / "test_32x32.mat").read_bytes()[:-50])
    with refused("train_32x32.mat", "MD5"):
        data.load(Spec(data="svhn", data_dir=str(folder)))


@pytest.mark.parametrize(
    ("held", "part"),
    [
        ({"X": np.zeros((32, 32, 1, 6), np.uint8)}, "uint8 [32, 32, 3, N]"),
        ({"y": np.zeros((6, 1), np.uint8)}, "from 1 to 10"),
        ({"y": np.ones((5, 1), np.uint8)}, "each of the 6 images"),
    ],
)
def test_a_wrong_file_of_svhn_is_named(numbers, refused, held, part):
    with refused("train_32x32.mat", part):
        from_folder(numbers(**held))


def test_no_matlab_file_is_refused(numbers, refused):
    folder = numbers()
    (folder / "train_32x32.mat").write_bytes(b"no MATLAB")
    with refused("train_32x32.mat", "no MATLAB file"):
        from_folder(folder)
