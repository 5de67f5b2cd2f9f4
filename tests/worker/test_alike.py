"""Hosts that read other data from folders of one name."""

from __future__ import annotations

from io import BytesIO

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from scalelab import data
from scalelab import spec as specs
from scalelab.data import Split
from scalelab.data.sources import Streamed
from scalelab.worker import alike
from scalelab.worker.alike import Other

SPEC = specs.from_mapping({"data": "digits"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, None),
        ({"train_limit": 1400}, Other(1, "data", "1400 training and 360 test samples, against 1437 and 360")),
        ({"seed": 1}, None),
    ],
)
def test_what_differs_is_told(values: dict[str, int], said: Other | None) -> None:
    rows = [alike.told(data.load(spec, lambda _: None)) for spec in (SPEC, msgspec.structs.replace(SPEC, **values))]
    assert alike.differing(torch.tensor(rows)) == said


def test_so_is_another_order_of_them() -> None:
    first = data.load(SPEC, lambda _: None)
    first.train.labels[:100] = first.train.labels[:100].flip(0).clone()
    found = alike.differing(torch.tensor([alike.told(data.load(SPEC, lambda _: None)), alike.told(first)]))
    assert found is not None
    assert (found.what, "in another order" in found.how) == ("labels", True)


def test_so_is_another_size_of_the_images() -> None:
    row = alike.told(data.load(SPEC, lambda _: None))
    other = [*row[:2], 28, 32, *row[4:]]
    assert alike.differing(torch.tensor([row, row, other])) == Other(2, "images", "of 32 x 28 pixels, against 8 x 8")


PIXELS = torch.randint(0, 256, (300, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def seen(images: torch.Tensor, few: bool = False) -> torch.Tensor:
    split = Split(images, torch.zeros(len(images), dtype=torch.int64))
    return alike.projections(split, alike.looked_at(len(images), few), 1)


def test_of_many_images_the_one_that_is_another_is_found() -> None:
    other = PIXELS.clone()
    other[217] = PIXELS[0]
    assert alike.others(seen(other), seen(PIXELS)).nonzero().tolist() == [[217]]


def test_what_another_decoder_rounds_otherwise_is_the_same_image() -> None:
    rounded = (PIXELS.int() + torch.randint(-1, 2, PIXELS.shape)).clamp(0, 255).to(torch.uint8)
    assert not alike.others(seen(rounded), seen(PIXELS)).any()


@pytest.mark.parametrize("change", ["flipped", "channels", "quality"])
def test_images_that_were_made_in_another_way_are_others(change: str) -> None:
    """A small difference in every image, which in one of them could not be told from a decoder's."""
    smooth = torch.nn.functional.interpolate(PIXELS.permute(0, 3, 1, 2)[:, :, :4, :4].float(), size=(16, 16), mode="bilinear")
    images = smooth.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    ways = {"flipped": images.flip(2), "channels": images.flip(3), "quality": torch.stack([_saved(one, 40) for one in images])}
    assert alike.others(seen(ways[change]), seen(images)).float().mean() > 0.1


def _saved(image: torch.Tensor, quality: int) -> torch.Tensor:
    file = BytesIO()
    Image.fromarray(image.numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.asarray(Image.open(file)).copy())


@pytest.mark.parametrize("count", [65, 148, 16_777_220])
def test_some_images_are_spread_evenly_over_all(count: int) -> None:
    """Also over more than float32 counts, and where it would round to a neighbour."""
    assert alike.looked_at(count, few=True).tolist() == [i * (count - 1) // 63 for i in range(64)]


class Encoded:
    """PNGs of images."""

    remedy = ""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def frames(self, index: int) -> list[tuple[str, bytes]]:
        file = BytesIO()
        Image.fromarray(self.images[index].numpy()).save(file, "PNG")
        return [(f"{index}", file.getvalue())]

    def first(self, count: int | None) -> Encoded:
        return Encoded(self.images[:count])


def test_a_host_that_streams_is_compared_with_one_that_does_not_by_some_images() -> None:
    which = alike.looked_at(len(PIXELS), few=True)
    assert (len(which), int(which[0]), int(which[-1])) == (64, 0, 299)
    streamed = Split(Streamed(Encoded(PIXELS), (300, 16, 16, 3), False), torch.zeros(300, dtype=torch.int64))
    assert torch.equal(alike.projections(streamed, which, 2), seen(PIXELS, few=True))


def test_who_has_others_is_named_with_how_many() -> None:
    table = torch.tensor([[0, 0, 0, 0], [0, 0, 2, 17], [5, 3, 0, 0]])
    assert alike.unlike(table) == Other(
        1, "images", "0 training and 2 test images of those that were compared, first test image 17"
    )
    assert alike.unlike(table[:1]) is None
