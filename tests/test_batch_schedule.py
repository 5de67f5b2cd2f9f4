"""``--batch-schedule`` and ``--lr-scaling``: the numbers that follow, and what is refused."""

from __future__ import annotations

import pytest

from scalelab.batch import derive
from scalelab.errors import ScalelabError
from scalelab.spec import Spec, over

ONE, TWO = (1, 1, 1), (2, 1, 1)


def parts(degrees=TWO, **values):
    spec = Spec(batch_schedule="0:16,2:64", workers=degrees[0], **values)
    return derive(spec, degrees, 2).segments


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [(8, 1), (32, 1)]),
        ({"accumulate": 2}, [(4, 2), (16, 2)]),
        ({"micro_batch": 4}, [(4, 2), (4, 8)]),
    ],
)
def test_the_micro_batch_grows_with_the_batch_unless_it_is_held(values, expected):
    assert [(part.micro_batch, part.accumulate) for part in parts(**values)] == expected


def test_what_is_derived_is_of_the_first_part():
    derived = derive(Spec(batch_schedule="0:16,2:64", workers=2), TWO, 2)
    assert (derived.batch, derived.micro_batch) == (16, 8)
    assert [(part.epoch, part.batch) for part in derived.segments] == [(0, 16), (2, 64)]


@pytest.mark.parametrize(("rule", "expected"), [("linear", 0.4), ("sqrt", 0.2)])
def test_the_peak_is_scaled_from_the_base_batch(rule, expected):
    derived = derive(Spec(lr=0.1, lr_scaling=rule, base_batch=32, batch=128), ONE, 1)
    assert derived.lr == pytest.approx(expected, rel=1e-12)


def test_without_scaling_the_peak_is_the_given_one():
    assert derive(Spec(lr=0.1, batch=4096), ONE, 1).lr == 0.1


def test_the_rate_stays_where_the_batch_grows_unless_it_shall_follow():
    values = {"lr": 0.1, "lr_scaling": "linear", "base_batch": 8}
    assert [part.lr for part in parts(**values)] == pytest.approx([0.2, 0.2])
    assert [part.lr for part in parts(**values, lr_follows_batch=True)] == pytest.approx([0.2, 0.8])


def test_a_schedule_takes_the_place_of_a_batch_below_it_and_the_other_way_round():
    assert over({"batch": 32}, {"batch_schedule": "0:16"}) == {"batch_schedule": "0:16"}
    assert over({"batch_schedule": "0:16"}, {"batch_per_worker": 8}) == {"batch_per_worker": 8}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch_schedule": "128"}, "expected EPOCH:BATCH,EPOCH:BATCH, such as 0:128,10:512"),
        ({"batch_schedule": "0:128,x:512"}, "expected EPOCH:BATCH"),
        ({"batch_schedule": ""}, "expected EPOCH:BATCH"),
        ({"batch_schedule": "1:128"}, "begins at epoch 1; say the first batch too, as 0:BATCH"),
        ({"batch_schedule": "0:128,5:256,5:512"}, "its epochs must increase"),
        ({"batch_schedule": "0:128,5:256,2:512"}, "its epochs must increase"),
        ({"batch_schedule": "0:128,5:0"}, "a batch has at least one sample"),
        ({"batch_schedule": "0:128,5:255"}, r"--batch 255 does not divide over 2 workers; nearest: 254 or 256"),
        ({"batch_schedule": "0:12,5:16", "accumulate": 3}, r"--accumulate 3 does not divide the 8 samples of a worker"),
        ({"batch_schedule": "0:128", "batch": 64}, "says the batch from epoch 0 on: leave --batch and --batch-per-worker out"),
        ({"batch_schedule": "0:128", "batch_per_worker": 64}, "leave --batch and --batch-per-worker out"),
        ({"batch_schedule": "0:128", "shares": "3:1"}, "--shares divides batches of one size"),
        ({"lr_scaling": "linear"}, "--lr-scaling linear: from which batch on"),
        ({"base_batch": 128}, "--base-batch 128: nothing is scaled"),
        ({"lr_follows_batch": True}, "--lr-follows-batch: the batch stays as it is"),
        ({"lr_follows_batch": True, "batch_schedule": "0:128,1:256"}, "--lr-follows-batch: by which rule"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values, said):
    with pytest.raises(ScalelabError, match=said) as found:
        derive(Spec(workers=2, **values), TWO, 2)
    assert "\n" not in str(found.value)
