"""The user's own data function: what it may return, and every wrong thing it can do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scalelab import data
from scalelab.spec import Spec

PRELUDE = """
import numpy as np, torch
def x(n=6, c=3, h=8, w=10, dtype=np.uint8): return (np.arange(n * c * h * w) % 251).reshape(n, c, h, w).astype(dtype)
def y(n=6, dtype=np.int64): return (np.arange(n) % 3).astype(dtype)
"""


@pytest.fixture
def spec(tmp_path: Path):
    """The spec for a data function with the given body."""

    def make(body: str) -> Spec:
        path = tmp_path / "my data: 'v2'.py"
        path.write_text(f"{PRELUDE}def f():\n    {body}\n")
        return Spec(data=f"{path}:f")

    return make


@pytest.mark.parametrize(
    "body",
    [
        "return (x(), y()), (x(4), y(4))",
        "return [[x(), y()], [x(4), y(4)]]",
        "return (torch.from_numpy(x()), torch.from_numpy(y())), (torch.from_numpy(x(4)), torch.from_numpy(y(4)))",
        "return (torch.from_numpy(x()), y()), (x(4)[::1], torch.from_numpy(y(4)))",
    ],
)
def test_numpy_and_torch_arrays_are_taken(spec, body):
    dataset = data.load(spec(body))
    expected = (torch.arange(6 * 3 * 8 * 10) % 251).reshape(6, 3, 8, 10)
    assert dataset.shape == (3, 8, 10)
    assert torch.equal(dataset.train.images.permute(0, 3, 1, 2).long(), expected)
    assert dataset.test.labels.tolist() == [0, 1, 2, 0]
    assert (dataset.num_classes, dataset.augment) == (3, "none")


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("raise KeyError('no such\\nthing')", ["KeyError", "no such", "my data: 'v2'.py:6"]),
        ("import sys; sys.exit(3)", ["SystemExit: 3", "my data: 'v2'.py:6"]),
        ("return torch.ones(2) @ torch.ones(3)", ["RuntimeError", "my data: 'v2'.py:6"]),
        ("return None", ["must return ((train_images, train_labels), (test_images, test_labels))", "NoneType"]),
        ("return (x(), y()), (x(), y()), (x(), y())", ["not 3 values"]),
        ("return (x(), y()), (x(), y(), 1)", ["(test_images, test_labels)", "not 3 values"]),
        ("return x(), y()", ["(train_images, train_labels)", "not ndarray"]),
        ("return (x().tolist(), y()), (x(), y())", ["train_images must be a numpy array or a torch tensor, not list"]),
        ("return (x(dtype=np.float32), y()), (x(), y())", ["train_images must be uint8", "float32"]),
        ("return (x(), y(dtype=np.int32)), (x(), y())", ["train_labels must be int64", "int32"]),
        ("return (x(), y()), (x(), y().astype(float))", ["test_labels must be int64", "float64"]),
        ("return (x()[0], y()), (x(), y())", ["train_images", "the axes [N, C, H, W]", "[3, 8, 10]"]),
        ("return (x(), y()[:, None]), (x(), y())", ["train_labels", "one axis", "[6, 1]"]),
        ("return (x(), y(5)), (x(), y())", ["6 train images but 5 labels"]),
        ("return (x(), y()), (x(4), y(6))", ["4 test images but 6 labels"]),
        ("return (x(0), y(0)), (x(), y())", ["train_images is empty"]),
        ("return (x(), y()), (x(0), y(0))", ["test_images is empty"]),
        ("return (x(w=0), y()), (x(w=0), y())", ["empty"]),
        ("return (x(), y() - 1), (x(), y())", ["train_labels", "row 0 is -1"]),
        ("return (x(), y()), (x(), y() + 5)", ["a test label is 7", "only go to 2"]),
        ("return (x(), y() * 0), (x(), y() * 0)", ["at least two classes"]),
        ("return (x(), y()), (x(h=9), y())", ["(3, 8, 10)", "(3, 9, 10)", "alike"]),
    ],
)
def test_whatever_is_wrong_is_told_in_one_line(spec, refused, body, parts):
    with refused(*parts):
        data.load(spec(body))


def test_clips_are_taken_too(spec):
    dataset = data.load(spec("return (x(12).reshape(6, 2, 3, 8, 10), y()), (x(8).reshape(4, 2, 3, 8, 10), y(4))"))
    assert dataset.shape == (2, 3, 8, 10)
    assert torch.equal(dataset.train.images[3, 1].permute(2, 0, 1).flatten(), (torch.arange(240) + 7 * 240).remainder(251).byte())


def test_a_function_that_wants_arguments_is_refused(tmp_path, refused):
    (tmp_path / "d.py").write_text("def f(folder): return folder\n")
    with refused("TypeError", "folder"):
        data.load(Spec(data=f"{tmp_path}/d.py:f"))


def test_a_missing_file_is_refused(tmp_path, refused):
    with refused("data", "nowhere.py", "No such file"):
        data.load(Spec(data=f"{tmp_path}/nowhere.py:f"))
