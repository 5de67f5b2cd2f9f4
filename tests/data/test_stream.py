"""Decoding ahead: the same batches as from memory, in order, and nothing left behind."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch
from tests.waiting import PATIENCE, until

from scalelab import data
from scalelab.data import assemble, room
from scalelab.data.dataset import Dataset
from scalelab.data.stream import AHEAD, Reader
from scalelab.errors import RunError
from scalelab.spec import Spec


def loaded(root: Path, stream: str, **values: object) -> Dataset:
    return data.load(Spec(data=f"folder:{root}", stream=stream, **values))  # type: ignore[arg-type]


def batches(dataset: Dataset, threads: int = 2, augment: str = "crop+flip") -> data.Batches:
    cpu = torch.device("cpu")
    return data.Batches(
        dataset.train, dataset.mean, dataset.std, augment, 3, cpu, channels_last=True, resize=dataset.resize, threads=threads
    )


def shares(samples: int, steps: int = 4) -> list[torch.Tensor]:
    """Two micro-batches of two samples a step."""
    return [data.epoch_order(samples, 0, 0)[4 * k : 4 * k + 4].view(2, 2) for k in range(steps)]


@pytest.mark.parametrize("resize", [None, 8, 20])
@pytest.mark.parametrize("threads", [1, 3])
def test_streamed_steps_are_those_from_memory_bit_for_bit(pictures, threads, resize):
    root = pictures(size=lambda k: (12 + (k % 2 if resize == 20 else 0), 10), form="jpg")
    held, streamed = (loaded(root, stream, resize=resize) for stream in ("never", "always"))
    assert (held.mean, held.std, held.shape) == (streamed.mean, streamed.std, streamed.shape)
    assert (held.streamed, streamed.streamed) == (False, True)
    one, other = (list(batches(d, threads).steps(iter(shares(16)), 5)) for d in (held, streamed))
    assert len(one) == len(other) == 4
    for mine, theirs in zip(one, other, strict=True):
        assert len(mine) == len(theirs) == 2
        for (images, labels), (images_, labels_) in zip(mine, theirs, strict=True):
            assert torch.equal(images, images_)
            assert torch.equal(labels, labels_)


def test_fetch_and_each_give_the_same_too(pictures):
    root = pictures()
    held, streamed = (batches(loaded(root, stream)) for stream in ("never", "always"))
    requests = [torch.tensor([3, 1, 0]), torch.tensor([5]), torch.tensor([2, 2])]
    for indices, (images, labels) in zip(requests, streamed.each(iter(requests), 1, train=False), strict=True):
        for found, expected in zip((images, labels), held.fetch(indices, 1, train=False), strict=True):
            assert torch.equal(found, expected)
    assert torch.equal(streamed.fetch(requests[0], 1, train=True)[0], held.fetch(requests[0], 1, train=True)[0])


class Slow:
    """Streamed images that count what was begun; stands where ``Streamed`` does. After so many at ``most`` it waits to be set free."""

    shape = (100, 1, 1, 3)

    def __init__(self, most: int = 10**9) -> None:
        self.begun: list[int] = []
        self.most, self.free = most, threading.Event()

    def read(self, index, out) -> None:
        self.begun.append(index)
        time.sleep(0.002)
        if len(self.begun) > self.most:
            self.free.wait(PATIENCE)
        out[:] = index


def test_batches_are_decoded_ahead_but_not_further_than_a_few():
    slow = Slow()
    reader = Reader(slow, threads=2, pinned=False)
    ahead = reader.ahead(torch.arange(100).split(8))
    next(ahead)
    until(lambda: len(slow.begun) >= 8 * (1 + AHEAD), "what is decoded ahead")
    time.sleep(0.1)
    assert len(slow.begun) == 8 * (1 + AHEAD)
    ahead.close()
    reader.pool.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_small_batches_keep_all_threads_busy():
    slow = Slow()
    ahead = Reader(slow, threads=3, pinned=False).ahead(torch.arange(100).split(1))
    next(ahead)
    until(lambda: len(slow.begun) >= 12, "batches enough for three threads")
    ahead.close()


def test_what_is_not_used_is_not_decoded():
    slow = Slow(most=35)
    reader = Reader(slow, threads=1, pinned=False)
    ahead = reader.ahead(torch.arange(100).split(30))
    next(ahead)
    ahead.close()
    slow.free.set()
    reader.pool.shutdown()
    assert len(slow.begun) < 60


def test_an_image_that_breaks_while_the_training_runs_is_named(pictures):
    root = pictures(parts=("train", "test"))
    dataset = loaded(root, "always")
    victim = root / "train" / "class 1" / "0004.png"
    victim.write_bytes(victim.read_bytes()[:-60])
    with pytest.raises(RunError, match=r"0004.png does not decode .*; replace or remove it"):
        list(batches(dataset).steps(iter(shares(20, 5)), 0))


def test_auto_streams_what_takes_more_than_half_of_the_memory(monkeypatch):
    total = room.memory_bytes()
    assert 0 < total < 2**50
    assert assemble.STREAM["auto"](int(0.51 * total))
    assert not assemble.STREAM["auto"](int(0.49 * total))


def test_a_folder_that_is_too_large_streams_and_says_so(pictures, monkeypatch):
    monkeypatch.setattr(room, "memory_bytes", lambda: 20 * 12 * 10 * 3 * 2 - 1)
    dataset = loaded(pictures(), "auto")
    assert dataset.streamed
    assert "more than half of this host's 14.1 KiB" in dataset.notes[-1]
