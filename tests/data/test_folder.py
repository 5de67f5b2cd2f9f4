"""``folder:PATH``: the layouts it takes, what it does with sizes, and everything that can be wrong with a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scalelab import data
from scalelab.spec import Spec


def load(root: Path, **values: object):
    return data.load(Spec(data=f"folder:{root}", **values))  # type: ignore[arg-type]


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_train_and_test_folders_give_their_images(pictures, test):
    root = pictures(count=3, parts=("train", test))
    dataset = load(root)
    assert (len(dataset.train), len(dataset.test), dataset.shape) == (6, 6, (3, 12, 10))
    assert dataset.class_names == ("class 0", "class 1")
    assert dataset.train.labels.tolist() == [0, 1] * 3  # classes take turns
    for place, name in enumerate(("0000", "0001", "0002")):
        expected = np.asarray(Image.open(root / "train" / "class 1" / f"{name}.png"))
        assert np.array_equal(dataset.train.images[2 * place + 1].numpy(), expected)
    assert dataset.notes == ()


def test_without_test_folders_a_fifth_of_each_class_is_held_out(pictures):
    dataset = load(pictures(classes=3, count=10))
    assert (len(dataset.train), len(dataset.test)) == (24, 6)
    assert dataset.test.labels.bincount().tolist() == [2, 2, 2]
    assert "held out" in dataset.notes[0]
    seen = {image.numpy().tobytes() for split in (dataset.train, dataset.test) for image in split.images}
    assert len(seen) == 30


def test_what_is_held_out_does_not_depend_on_where_the_folder_lies(pictures):
    one, other = (load(pictures(name=name)) for name in ("a", "b"))
    assert torch.equal(one.test.images, other.test.images)


def test_what_is_held_out_is_the_same_on_every_day(pictures):
    """By a hash of the names that knows no process's salt: these two of ten."""
    root = pictures()
    expected = {np.asarray(Image.open(root / "class 0" / f"{name}.png")).tobytes() for name in ("0000", "0002")}
    held = load(root).test
    assert {image.numpy().tobytes() for image in held.images[held.labels == 0]} == expected


@pytest.mark.parametrize("form", ["jpg", "png", "webp", "bmp", "gif"])
def test_the_usual_formats_are_read_as_rgb(pictures, form):
    assert load(pictures(count=2, form=form)).shape == (3, 12, 10)


def test_grey_and_transparent_images_become_rgb(pictures):
    root = pictures(count=2)
    Image.new("L", (10, 12), 50).save(root / "class 0" / "0000.png")
    Image.new("RGBA", (10, 12), (1, 2, 3, 4)).save(root / "class 0" / "0001.png")
    dataset = load(root)
    found = {tuple(i[0, 0].tolist()) for s in (dataset.train, dataset.test) for i in s.images[s.labels == 0]}
    assert found == {(50, 50, 50), (1, 2, 3)}


GREY = (np.arange(120).reshape(12, 10) + 0x2000).astype(np.uint16)


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize(("form", "kind"), [("png", np.uint16), ("tif", np.uint16), ("pgm", np.uint16), ("tif", np.int32)])
def test_sixteen_bits_of_grey_become_eight(pictures, stream, form, kind):
    root = pictures(count=3, parts=("train", "test"))
    for path in root.rglob("*.png"):
        path.unlink()
        Image.fromarray((GREY + (0xA000 if "class 1" in str(path) else 0)).astype(kind)).save(path.with_suffix(f".{form}"))
    split = load(root, stream=stream).train
    images = torch.from_numpy(split.images.all()) if stream == "always" else split.images
    assert [images[split.labels == label].unique().tolist() for label in (0, 1)] == [[0x20], [0xC0]]


@pytest.mark.parametrize(
    ("pixels", "why"), [(GREY.astype(np.float32), "floats, Pillow's mode F"), (GREY.astype(np.int32) * 40, "outside of 16 bits")]
)
def test_pixels_whose_white_is_not_known_are_refused(pictures, refused, pixels, why):
    root = pictures()
    Image.fromarray(pixels).save(root / "class 1" / "0011.tif")
    with refused("class 1/0011.tif does not decode", why):
        load(root)


def test_a_limit_reads_no_more_than_it_asks_for(pictures):
    root = pictures(parts=("train", "test"))
    (root / "train" / "class 1" / "0009.png").write_bytes(b"damaged")
    dataset = load(root, train_limit=4, test_limit=2)
    assert (dataset.train.labels.tolist(), len(dataset.test)) == ([0, 1, 0, 1], 2)


def test_images_of_different_sizes_are_resized_as_they_are_decoded(pictures):
    dataset = load(pictures(size=lambda k: (9 + k % 3, 20)), resize=8)
    assert dataset.shape == (3, 8, 8)
    assert dataset.train.images.shape[1:] == (8, 8, 3)
    assert dataset.resize is None


def test_small_images_of_one_size_stay_small_in_memory(pictures):
    dataset = load(pictures(), resize=64)
    assert dataset.shape == (3, 64, 64)
    assert dataset.train.images.shape[1:] == (12, 10, 3)


def test_large_images_of_one_size_are_kept_at_the_size_asked_for(pictures):
    assert load(pictures(), resize=6).train.images.shape[1:] == (6, 6, 3)


def test_other_files_are_left_out_and_that_is_noted(pictures):
    root = pictures()
    (root / "class 0" / "notes.txt").write_text("x")
    (root / "class 1" / "list.csv").write_text("x")
    (root / "class 1" / ".hidden").write_text("x")
    dataset = load(root)
    assert len(dataset.train) + len(dataset.test) == 20
    assert dataset.notes[-1].endswith("class 0/notes.txt and 1 more")


def test_the_second_load_decodes_nothing_and_a_changed_image_is_read(pictures):
    root, told = pictures(), []
    spec = Spec(data=f"folder:{root}")
    before = data.load(spec, told.append)
    assert any("decoding" in line for line in told)
    told.clear()
    data.load(spec, told.append)
    assert told == []
    for path in root.rglob("*.png"):
        Image.new("RGB", (10, 12), (9, 9, 9)).save(path)
    assert data.load(spec).train.images.unique().tolist() == [9]
    assert before.train.images.max() > 9


def clips(root: Path, lengths: tuple[int, ...] = (3, 20), classes: int = 2, count: int = 5) -> Path:
    """Clips of solid frames whose red is the frame's number."""
    for label in range(classes):
        for clip in range(count):
            folder = root / f"class {label}" / f"clip {clip}"
            folder.mkdir(parents=True)
            for frame in range(lengths[clip % len(lengths)]):
                Image.new("RGB", (6, 5), (frame, label, clip)).save(folder / f"{frame:03}.png")
    return root


def test_folders_of_frames_are_clips_of_evenly_spaced_frames(tmp_path):
    dataset = load(clips(tmp_path / "clips"), frames=4)
    assert dataset.shape == (4, 3, 5, 6)
    assert dataset.train.images.shape == (8, 4, 5, 6, 3)
    reds = {tuple(clip[:, 0, 0, 0].tolist()) for clip in dataset.train.images}
    assert reds == {(0, 6, 13, 19), (0, 1, 1, 2)}
    for clip, label in zip(dataset.train.images, dataset.train.labels, strict=True):
        assert clip[..., 1].unique().tolist() == [label]


def picture(root: Path) -> Path:
    return root / "class 1" / "0003.png"


def clips_beside(root: Path) -> None:
    clips(root.parent / "more")
    (root.parent / "more" / "class 0").rename(root / "class 3")


def lonely(root: Path) -> None:
    (root / "class 2").mkdir()
    picture(root).rename(root / "class 2" / "0000.png")


def as_training(root: Path) -> Path:
    (root.parent / "new").mkdir()
    return root.rename(root.parent / "new" / "train").parent


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no image": lambda root: picture(root).write_text("not a picture"),
    "empty": lambda root: picture(root).write_bytes(b""),
    "truncated": lambda root: picture(root).write_bytes(picture(root).read_bytes()[:-60]),
    "size": lambda root: Image.new("RGB", (7, 12)).save(picture(root)),
    "empty class": lambda root: (root / "class 2").mkdir(),
    "one class": lambda root: (root / "class 0").rename(root.parent / "elsewhere") and None,
    "link": lambda root: (root / "class 1" / "gone.jpg").symlink_to("nowhere.jpg"),
    "itself": lambda root: (root / "class 1" / "round.jpg").symlink_to("round.jpg"),
    "loop": lambda root: (root / "class 1" / "up").symlink_to(root),
    "folder": lambda root: (root / "class 1" / "foo.jpg").mkdir(),
    "mixed": lambda root: (root / "class 1" / "clip").mkdir(),
    "clips too": clips_beside,
    "one sample": lonely,
    "no test": as_training,
    "no classes": lambda root: root / "class 0",
    "nothing": lambda root: (root.parent / "void").mkdir() or root.parent / "void",
    "missing": lambda root: root / "nowhere",
}
"""what is done to a good folder; where it gives another one, that is loaded"""


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("no image", ["class 1/0003.png does not decode (not an image)", "remove it"]),
        ("empty", ["class 1/0003.png does not decode (no bytes)", "remove it"]),
        ("link", ["class 1/gone.jpg: is a link to a file that is not there"]),
        ("itself", ["class 1/round.jpg: cannot be read: Too many levels"]),
        ("loop", ["class 1/up: is a link to a folder that it lies in"]),
        ("folder", ["class 1/foo.jpg: is a folder, and named like an image"]),
        ("truncated", ["class 1/0003.png does not decode", "truncated"]),
        ("size", ["class 1/0003.png is 7x12", "the first one 10x12", "--resize N"]),
        ("empty class", ["the class 'class 2' is empty"]),
        ("one class", ["one class only"]),
        ("mixed", ["beside folders of frames"]),
        ("clips too", ["class 3", "holds clips, and other classes images"]),
        ("one sample", ["class 2", "none can be held out"]),
        ("no test", ["a folder train, but none called test or val"]),
        ("no classes", ["holds images, but no class folders"]),
        ("nothing", ["no class folders"]),
        ("missing", ["there is no folder", "nowhere"]),
    ],
)
def test_whatever_is_wrong_is_told_in_one_line(pictures, refused, what, parts):
    with refused(*parts):
        root = pictures()
        other = DAMAGES[what](root)
        load(other if isinstance(other, Path) else root)


def test_a_class_whose_name_no_record_could_hold_is_refused(pictures, refused):
    root = pictures()
    (root / "class 1").rename(root / "caf\udce9")
    with refused("caf?", "not UTF-8"):
        load(root)


def test_a_test_class_that_is_not_trained_is_refused(pictures, refused):
    root = pictures(parts=("train", "test"))
    (root / "test" / "class 0").rename(root / "test" / "class 9")
    with refused("'class 9' is not in"):
        load(root)
