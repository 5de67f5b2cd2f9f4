"""The model of clips: what it computes, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scalelab import models
from scalelab.errors import ScalelabError
from scalelab.spec import Spec

SHAPE = (5, 3, 16, 16)


def build(**model_args: object) -> nn.Module:
    torch.manual_seed(0)
    return models.build(Spec(model="cnn_lstm", model_args={"width": 4, "hidden": 6, **model_args}), 7, SHAPE)


def test_a_clip_has_a_score_for_each_class_and_every_parameter_a_gradient():
    model = build()
    models.check_forward(model, SHAPE, 7)
    assert models.unused_parameters(model, SHAPE) == []


def test_it_is_each_frame_through_the_cnn_then_the_lstm_then_a_linear_layer_of_the_last_state():
    model = build().double().eval()
    clips = torch.randn(3, *SHAPE, dtype=torch.float64)
    features = torch.stack([model.frames(clips[:, place]) for place in range(5)], 1)
    _, (last, _) = model.lstm(features)
    torch.testing.assert_close(model(clips), model.head(last[0]), rtol=1e-12, atol=1e-12)


def test_the_order_of_the_frames_matters():
    model = build().eval()
    clips = torch.randn(3, *SHAPE)
    assert not torch.allclose(model(clips), model(clips.flip(1)), atol=1e-4)


def test_its_arguments_reach_it():
    model = build(width=8, hidden=5)
    assert (model.frames[0].out_channels, model.lstm.input_size, model.lstm.hidden_size) == (8, 32, 5)


@pytest.mark.parametrize("name", ["width", "hidden"])
def test_an_argument_below_1_is_refused(name):
    with pytest.raises(ScalelabError, match=f"cnn_lstm: {name}=0 should be a whole number"):
        build(**{name: 0})


def test_frames_that_are_too_small_are_refused():
    with pytest.raises(ScalelabError, match="needs clips of at least 8x8 pixels, and these are 4x9"):
        models.build(Spec(model="cnn_lstm"), 7, (5, 3, 4, 9))


def test_what_a_model_of_clips_cannot_take_is_told_in_words_of_clips(tmp_path):
    path = tmp_path / "m.py"
    path.write_text("from torch import nn\ndef f(num_classes):\n    return nn.Linear(5, num_classes)\n")
    model = models.build(Spec(model=f"{path}:f"), 7, SHAPE)
    with pytest.raises(ScalelabError, match=r"cannot take clips of 5x3x16x16 \(frames x channels x height x width\)"):
        models.check_forward(model, SHAPE, 7)
