"""``parquet:PATH``: the columns and labels it takes, and what it refuses. What it shares with cifar10 is tested there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from conftest import png
from scalelab import data
from scalelab.data import room
from scalelab.spec import Spec


def write(folder: Path, labels: list[object], column: str = "image", label: str = "label", struct: bool = True, **parts: object):
    """The same rows as train and test; ``parts`` may hold the hub's class names."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [png(np.full((6, 5, 3), 10 * k, np.uint8)) for k in range(len(labels))]
    table = pa.table({column: [{"bytes": i, "path": ""} for i in images] if struct else images, label: labels})
    if "names" in parts:
        features = {label: {"names": parts["names"], "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for part in ("train", "validation"):
        parquet.write_table(table, folder / f"{part}-00000-of-00001.parquet", row_group_size=3)
    return folder


def load(folder: Path, **values: object):
    return data.load(Spec(data=f"parquet:{folder}", **values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "label", "struct"), [("image", "label", True), ("jpg", "cls", False), ("img", "target", True)]
)
def test_the_usual_columns_are_taken(tmp_path, column, label, struct):
    dataset = load(write(tmp_path / "d", [0, 1, 2, 0, 1], column, label, struct))
    assert (dataset.shape, dataset.num_classes, len(dataset.test)) == ((3, 6, 5), 3, 5)
    assert dataset.train.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]


def test_the_folder_may_be_a_clone_of_the_hub_s(tmp_path):
    write(tmp_path / "clone" / "data", [0, 1])
    assert len(load(tmp_path / "clone").train) == 2


def test_class_names_are_the_hub_s(tmp_path):
    assert load(write(tmp_path / "d", [0, 1], names=["cat", "dog", "eel"])).class_names == ("cat", "dog", "eel")


def test_labels_may_be_text(tmp_path):
    dataset = load(write(tmp_path / "d", ["dog", "cat", "dog"]))
    assert (dataset.class_names, dataset.train.labels.tolist()) == (("cat", "dog"), [1, 0, 1])


def test_sixteen_bits_of_grey_become_eight(tmp_path):
    folder = write(tmp_path / "d", [0, 1])
    for path in folder.iterdir():
        images = [png(np.full((6, 5), value, np.uint16)) for value in (0x2000, 0xC0FF)]
        parquet.write_table(pa.table({"image": images, "label": [0, 1]}), path)
    assert load(folder).train.images[:, 0, 0, 0].tolist() == [0x20, 0xC0]


def test_streamed_rows_are_those_in_memory(tmp_path):
    folder = write(tmp_path / "d", [0, 1, 2, 0, 1, 2, 0])
    held, streamed = load(folder), load(folder, stream="always")
    assert (held.mean, held.std) == (streamed.mean, streamed.std)
    out = np.empty((6, 5, 3), np.uint8)
    for index in range(7):
        streamed.train.images.read(index, out)
        assert np.array_equal(out, held.train.images[index].numpy())
    assert torch.equal(held.train.labels, streamed.train.labels)


@pytest.mark.parametrize(
    ("memory", "streamed"), [(2 * 10 * 90 - 1, True), (2 * 10 * 90 + 1, False)], ids=["too small", "large enough"]
)
def test_rows_are_copied_only_where_the_images_of_both_parts_are_streamed(tmp_path, cache_folder, monkeypatch, memory, streamed):
    """6 × 5 pixels of 3 bytes, 5 to train on and 5 to test: neither part alone is more than half of the memory."""
    monkeypatch.setattr(room, "memory_bytes", lambda: memory)
    assert load(write(tmp_path / "d", [0, 1, 2, 0, 1])).streamed is streamed
    assert len(list(cache_folder.glob("rows/*.arrow"))) == (2 if streamed else 0)


@pytest.mark.parametrize("left", [0, 100])
def test_a_damaged_copy_is_made_again(tmp_path, cache_folder, left):
    folder, out = write(tmp_path / "d", [0, 1, 2]), np.empty((6, 5, 3), np.uint8)
    load(folder, stream="always")
    for copy in cache_folder.glob("rows/*.arrow"):
        copy.write_bytes(copy.read_bytes()[:left])
    load(folder, stream="always").train.images.read(2, out)
    assert out[0, 0, 0] == 20


@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_damaged_image_is_named_by_its_row(tmp_path, refused, stream):
    folder = write(tmp_path / "d", [0, 1, 0])
    rows = [{"bytes": png(np.zeros((6, 5, 3), np.uint8)), "path": ""}, {"bytes": b"damaged", "path": ""}]
    parquet.write_table(pa.table({"image": rows, "label": [0, 1]}), folder / "train-00000-of-00001.parquet")
    with refused("train-00000-of-00001.parquet: the image of row 1 does not decode"):
        load(folder, stream=stream)


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        ([0, 0, 0], ["one class only"]),
        ([0, -1, 1], ["label of row 1 is -1"]),
        ([0, None, 1], ["no label"]),
        ([0, 1, 50_000_000], ["a label is 50000000, but there are 3 training rows"]),
        ([0.5, 1.5], ["0.5"]),
    ],
)
def test_wrong_labels_are_refused(tmp_path, refused, labels, parts):
    folder = write(tmp_path / "d", labels)
    if labels == [0.5, 1.5]:  # numbers that are not whole are names like any other
        assert load(folder).class_names == ("0.5", "1.5")
        return
    with refused(*parts):
        load(folder)


def test_a_label_that_is_not_trained_is_refused(tmp_path, refused):
    folder = write(tmp_path / "d", ["a", "b"])
    rows = [{"bytes": png(np.zeros((6, 5, 3), np.uint8)), "path": ""}]
    parquet.write_table(pa.table({"image": rows, "label": ["z"]}), folder / "validation-00000-of-00001.parquet")
    with refused("the label 'z' is in no training file"):
        load(folder)


def test_a_missing_folder_or_part_is_refused(tmp_path, refused):
    with refused("there is no folder", "train*.parquet"):
        load(tmp_path / "nowhere")
    (write(tmp_path / "d", [0, 1]) / "validation-00000-of-00001.parquet").unlink()
    with refused("no test*.parquet or val*.parquet"):
        load(tmp_path / "d")


def test_without_a_cache_streaming_says_what_to_do(tmp_path, refused, monkeypatch):
    folder = write(tmp_path / "d", [0, 1])
    monkeypatch.setenv("SCALELAB_CACHE", "/proc/no")
    with refused("SCALELAB_CACHE"):
        load(folder, stream="always")
