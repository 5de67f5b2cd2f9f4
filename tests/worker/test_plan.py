"""The steps of a training whose batch changes: which epoch, which samples, which learning rate."""

from __future__ import annotations

import pytest
import torch

from scalelab.batch import derive
from scalelab.errors import ScalelabError
from scalelab.spec import Spec, from_mapping
from scalelab.worker import plan as planning

SAMPLES = 100


def planned(**values):
    spec = Spec(**{"batch_schedule": "0:10,2:20,3:50", "epochs": 5, **values})
    return spec, planning.make(spec, derive(spec, (1, 1, 1), 1), SAMPLES)


def test_each_part_has_the_steps_of_its_epochs():
    _, plan = planned()
    assert plan.total_steps == 2 * 10 + 5 + 2 * 2
    assert [plan.stretch(step).segment.batch for step in (0, 19, 20, 24, 25, 28)] == [10, 10, 20, 20, 50, 50]
    assert [plan.epoch_of(step) for step in (0, 9, 10, 19, 20, 24, 25, 27)] == [0, 0, 1, 1, 2, 2, 3, 4]


def test_an_epoch_ends_where_its_own_batches_end():
    _, plan = planned()
    ends = [0]
    while ends[-1] < plan.total_steps:
        ends.append(plan.epoch_end(ends[-1]))
    assert ends == [0, 10, 20, 25, 27, 29]
    assert not any(plan.inside_epoch(step) for step in ends)
    assert all(plan.inside_epoch(step) for step in (5, 21, 26))


def test_each_epoch_has_every_sample_once():
    spec, plan = planned()
    derived = derive(spec, (1, 1, 1), 1)
    for start, stop in ((0, 10), (20, 25), (27, 29)):
        seen = torch.cat([share.flatten() for share in planning.shares(plan, spec, derived, 0, start, stop)])
        assert sorted(seen.tolist()) == list(range(SAMPLES))


def test_the_schedule_follows_the_share_of_the_epochs():
    """Half an epoch before the end the rate is the same, however many steps that is."""
    spec, plan = planned(schedule="cosine", lr=0.4)
    plain, even = planned(schedule="cosine", lr=0.4, batch_schedule=None, batch=10)
    assert planning.learning_rate(plan, spec, 27) == pytest.approx(planning.learning_rate(even, plain, 40))
    assert planning.learning_rate(plan, spec, 28) == pytest.approx(planning.learning_rate(even, plain, 45))


def test_a_decay_by_epochs_comes_at_the_same_epoch():
    spec, plan = planned(schedule="step", step_epochs=3, step_gamma=0.1, lr=1.0)
    assert [planning.learning_rate(plan, spec, step) for step in (19, 24, 25, 28)] == pytest.approx([1.0, 1.0, 0.1, 0.1])


def test_a_warm_up_does_not_pass_its_peak_where_the_batch_becomes_smaller():
    spec, plan = planned(batch_schedule="0:50,1:10", warmup_epochs=2.0, lr=1.0)
    rates = [planning.learning_rate(plan, spec, step) for step in range(plan.total_steps)]
    assert rates == sorted(rates)
    assert max(rates) == 1.0


def test_each_part_has_its_own_peak_where_the_rate_follows():
    spec, plan = planned(lr=0.1, lr_scaling="linear", base_batch=10, lr_follows_batch=True)
    assert [planning.learning_rate(plan, spec, step) for step in (0, 20, 25)] == pytest.approx([0.1, 0.2, 0.5])


def test_samples_left_out_are_told_by_batch():
    _, plan = planned(batch_schedule="0:30,2:64")
    said = planning.notes(plan)
    assert said[0].startswith("the last 10 of 100 samples")
    assert said[1].startswith("the last 36 of 100 samples")
    assert said[2].startswith("the batch changes from 30 to 64 from step 7 on (epoch 3)")


def test_steps_that_end_before_the_change_are_told():
    _, plan = planned(epochs=None, steps=12)
    assert not plan.whole_schedule
    assert planning.notes(plan) == ["the training ends before the batch changes to 20"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epochs": 3}, "epoch 3, counted from 0, is after the last of --epochs 3"),
        ({"batch_schedule": "0:10,2:200"}, "a batch of 200 is more than the 100 training samples; use at most 100"),
    ],
)
def test_a_schedule_that_the_data_or_the_epochs_do_not_allow_is_refused(values, said):
    with pytest.raises(ScalelabError, match=said):
        planned(**values)


def test_a_batch_that_is_more_than_there_are_is_told_by_the_flag_that_said_it() -> None:
    for values, said in (
        ({"batch": 150}, "--batch 150 is"),
        ({"batch_per_worker": 150}, "--batch-per-worker 150: a batch of 150 is"),
    ):
        spec = from_mapping(values)
        with pytest.raises(ScalelabError, match=f"^{said} more than the 100 training samples"):
            planning.make(spec, derive(spec, (1, 1, 1), 4), 100)
