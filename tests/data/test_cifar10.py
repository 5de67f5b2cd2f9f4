"""CIFAR-10 in each form it comes in, and everything that can be wrong with its files."""

from __future__ import annotations

import http.server
import io
import os
import pickle
import shutil
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from conftest import BATCHES, batch_arrays, png
from scalelab.data import cifar, known
from scalelab.data.dataset import silent
from scalelab.spec import Spec

NOBODY = "http://127.0.0.1:9/cifar-10-python.tar.gz"
"""An address where nothing listens: what being offline looks like."""


def load(folder: Path | str, told: Callable[[str], None] = silent, url: str = NOBODY, md5: str = cifar.CIFAR10.official[0].md5):
    """CIFAR-10 from ``folder``, as if its home page were at ``url`` and the archive's checksum ``md5``."""
    official = (replace(cifar.CIFAR10.official[0], url=url, md5=md5),)
    return known.load(replace(cifar.CIFAR10, official=official), Spec(data="cifar10", data_dir=str(folder)), told)


def assert_is_the_test_batches(dataset) -> None:
    images = np.concatenate([batch_arrays(name)[0] for name in BATCHES[:5]])
    assert torch.equal(dataset.train.images.permute(0, 3, 1, 2).flatten(1), torch.from_numpy(images))
    assert dataset.test.labels.tolist() == batch_arrays("test_batch")[1]


def test_the_archive_gives_its_images(archive):
    path, md5 = archive()
    assert_is_the_test_batches(load(path.parent, md5=md5))


def test_the_path_of_the_archive_itself_will_do(archive):
    path, md5 = archive()
    assert_is_the_test_batches(load(path, md5=md5))


@pytest.mark.parametrize("up", [0, 1])
def test_the_extracted_folder_or_the_one_that_holds_it(batches, up):
    folder = batches()
    assert_is_the_test_batches(load([folder, folder.parent][up]))


@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet_gives_the_images_and_labels_in_order(hub, column):
    generator = np.random.default_rng(5)
    images = [generator.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(600)]
    dataset = load(hub(train=[png(image) for image in images], column=column))
    assert np.array_equal(dataset.train.images.numpy(), np.stack(images))
    assert dataset.train.labels.tolist() == [k % 10 for k in range(600)]


def test_parquet_in_several_files_is_joined_in_their_order(hub):
    folder = hub()
    shutil.copy(folder / "train.parquet", folder / "train-00001-of-00002.parquet")
    (folder / "train.parquet").rename(folder / "train-00000-of-00002.parquet")
    dataset = load(folder)
    assert len(dataset.train) == 24
    assert torch.equal(dataset.train.images[:12], dataset.train.images[12:])


def test_the_second_load_needs_no_decoding(hub):
    folder = hub()
    told: list[str] = []
    first = load(folder, told.append)
    assert any("decoding" in line for line in told)
    told.clear()
    second = load(folder, told.append)
    assert told == []
    assert torch.equal(first.train.images, second.train.images)


def test_changed_files_are_read_again(hub):
    folder = hub()
    before = load(folder)
    hub(train=[png(np.full((32, 32, 3), 7, np.uint8))] * 3)
    after = load(folder)
    assert (len(before.train), len(after.train)) == (12, 3)
    assert after.train.images.unique().tolist() == [7]


def test_a_missing_folder_is_made_and_filled_from_the_home_page(archive, server, tmp_path):
    url, served = server
    _, md5 = archive(served / "c.tar.gz")
    told: list[str] = []
    target = tmp_path / "deep" / "new folder"
    assert_is_the_test_batches(load(target, told.append, url=f"{url}/c.tar.gz", md5=md5))
    assert any("100 %" in line for line in told)
    assert [path.name for path in target.iterdir()] == ["cifar-10-python.tar.gz"]


def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(archive, server, tmp_path, refused):
    url, served = server
    archive(served / "c.tar.gz")
    with refused("MD5", cifar.CIFAR10.official[0].md5, "get the file elsewhere"):
        load(tmp_path / "a" / "b", url=f"{url}/c.tar.gz")
    assert not (tmp_path / "a").exists()


def test_offline_says_what_to_do_and_leaves_nothing(tmp_path, refused):
    with refused("holds no CIFAR-10", "cannot be downloaded", "put it there"):
        load(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_offline_with_an_empty_folder_keeps_that_folder(tmp_path, refused):
    (tmp_path / "empty").mkdir()
    with refused("holds no CIFAR-10", "cannot be downloaded"):
        load(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_page_that_is_gone_is_told(server, tmp_path, refused):
    with refused("cannot be downloaded", "HTTP 404"):
        load(tmp_path / "a", url=f"{server[0]}/gone.tar.gz")


def test_a_download_cut_short_is_refused(tmp_path, refused):
    class Cut(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 100)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cut) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        with refused("cannot be downloaded", "100"):
            load(tmp_path / "a", url=f"http://127.0.0.1:{running.server_port}/c")
        running.shutdown()
        thread.join()
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, refused):
    (tmp_path / "file").write_text("")
    with refused("file/data", "Not a directory"):
        load(tmp_path / "file" / "data")


def test_a_folder_of_other_things_is_refused_and_not_filled(tmp_path, refused):
    (tmp_path / "holiday.jpg").write_text("")
    with refused("holds no CIFAR-10", "holiday.jpg", "cifar-10-batches-py", "parquet"):
        load(tmp_path)


def test_a_truncated_archive_is_refused(archive, refused):
    path, md5 = archive()
    path.write_bytes(path.read_bytes()[:-5000])
    with refused("MD5", "truncated", "delete it"):
        load(path.parent, md5=md5)


@pytest.mark.parametrize("keep", [0, 10, 3000, 20_000])
def test_a_truncated_archive_whose_checksum_was_not_told_is_refused_too(archive, refused, keep):
    path, _ = archive()
    path.write_bytes(path.read_bytes()[:keep])
    with refused(str(path), "delete it"):
        load(path, md5=known.md5_of(path))


def test_an_archive_without_a_batch_is_refused(tmp_path, refused):
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("cifar-10-batches-py/readme.html"), io.BytesIO())
    with refused("holds no data_batch_1", "test_batch"):
        load(path, md5=known.md5_of(path))


def test_a_missing_batch_is_named(batches, refused):
    folder = batches()
    (folder / "data_batch_3").unlink()
    with refused("data_batch_3", "extract"):
        load(folder)


class Attack:
    """What a malicious pickle does: name a function for the reader to call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(batches, refused, tmp_path, protocol):
    witness = tmp_path / "witness"
    body = pickle.dumps({b"data": Attack(os.mkdir, str(witness)), b"labels": [1]}, protocol=protocol)
    with refused("data_batch_2", "mkdir", "not run"):
        load(batches(data_batch_2=body))
    assert not witness.exists()
    pickle.loads(body)  # noqa: S301  the attack itself works
    assert witness.exists()


def test_a_malicious_pickle_in_an_archive_is_refused(archive, refused, tmp_path):
    path, md5 = archive(test_batch=pickle.dumps(Attack(eval, f"open({str(tmp_path / 'witness')!r}, 'w')")))
    with refused("test_batch", "eval", "not run"):
        load(path, md5=md5)
    assert not (tmp_path / "witness").exists()


def test_a_pickle_may_not_use_another_codec(batches, refused):
    import codecs

    with refused("codec", "zip"):
        load(batches(data_batch_1=pickle.dumps(Attack(codecs.encode, "x", "zip"), protocol=2)))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "truncated"),
        (b"no pickle", "not a batch"),
        (pickle.dumps([1, 2], protocol=2), "'data' and 'labels'"),
        (pickle.dumps({b"data": 5, b"labels": [1]}, protocol=2), "uint8 [N, 3072]"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 2]}, protocol=2), "uint8 [N, 3072]"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2), "N labels"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}, protocol=2), "label of row 1 is 10"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [-1, 1]}, protocol=2), "label of row 0 is -1"),
        (pickle.dumps({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, protocol=2), "empty"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": ["a", "b"]}, protocol=2), "'data' and 'labels'"),
    ],
)
def test_a_wrong_batch_is_named(batches, refused, content, part):
    with refused("data_batch_4", part):
        load(batches(data_batch_4=content))


def test_a_batch_cut_short_is_named(batches, refused):
    folder = batches()
    file = folder / "data_batch_5"
    file.write_bytes(file.read_bytes()[:4000])
    with refused("data_batch_5"):
        load(folder)


GOOD = png(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"column": "picture"}, ["train.parquet", "picture", "'img'", "'label'"]),
        ({"label": "class"}, ["class", "'label'"]),
        ({"train": [GOOD] * 3, "labels": [0, 10, 1]}, ["label of row 1 is 10", "0 to 9"]),
        ({"train": [GOOD] * 3, "labels": [0, 1, -1]}, ["label of row 2 is -1"]),
        ({"train": [GOOD] * 3, "labels": [0, None, 1]}, ["1 rows have no label"]),
        ({"train": [GOOD] * 3, "labels": [0.5, 1.0, 2.0]}, ["'label' is double"]),
        ({"train": [GOOD] * 600 + [b"no image"]}, ["image of row 600 does not decode"]),
        ({"train": [b"no image", GOOD]}, ["image of row 0 does not decode"]),
        ({"train": [GOOD, GOOD[:-30]]}, ["image of row 1 does not decode"]),
        ({"train": [GOOD, None]}, ["image of row 1 does not decode", "no bytes"]),
        ({"train": [GOOD, png(np.zeros((16, 24, 3), np.uint8))]}, ["image of row 1 is 24x16", "32x32"]),
    ],
)
def test_wrong_parquet_is_refused_by_what_is_wrong(hub, refused, arguments, parts):
    with refused(*parts):
        load(hub(**arguments))


def test_wrong_parquet_leaves_nothing_in_the_cache(hub, refused, cache_folder):
    with refused("row 1"):
        load(hub(train=[GOOD, b"no"]))
    assert list(cache_folder.glob("*.npy")) == []


def test_parquet_whose_image_column_is_no_struct_is_refused(hub, refused):
    folder = hub()
    parquet.write_table(pa.table({"img": ["a.png"], "label": [1]}), folder / "train.parquet")
    with refused("'img' is string", "{bytes, path}"):
        load(folder)


def test_parquet_without_rows_is_refused(hub, refused):
    folder = hub()
    parquet.write_table(parquet.read_table(folder / "train.parquet").slice(0, 0), folder / "train.parquet")
    with refused("train.parquet", "no rows"):
        load(folder)


def test_test_images_of_another_size_are_refused(hub, refused):
    folder = hub()
    rows = [{"bytes": png(np.zeros((8, 8, 3), np.uint8)), "path": "x"}]
    parquet.write_table(pa.table({"img": rows, "label": [1]}), folder / "test.parquet")
    with refused("test.parquet", "8x8", "32x32"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"no Parquet at all", None])
def test_truncated_parquet_is_refused(hub, refused, content):
    file = hub() / "train.parquet"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with refused("train.parquet", "cannot be read as Parquet"):
        load(file.parent)


@pytest.mark.parametrize("part", ["train", "test"])
def test_half_of_the_parquet_is_refused(hub, refused, part):
    folder = hub()
    (folder / f"{part}.parquet").unlink()
    with refused(f"no {part}*.parquet"):
        load(folder)
