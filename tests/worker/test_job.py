"""What a rank makes of a spec before it trains."""

from __future__ import annotations

import textwrap
from pathlib import Path

import torch

from scalelab import data
from scalelab.spec import Spec
from scalelab.worker import job

MODEL = """
    from torch import nn
    class Model(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.lstm = nn.LSTM(24, 5, num_layers=2, dropout=0.5, batch_first=True)
            self.attention = nn.MultiheadAttention(5, 1, dropout=0.5, batch_first=True)
            self.drop, self.head = nn.Dropout(0.5), nn.Linear(5, classes)
        def forward(self, x):
            x = self.lstm(x.flatten(2).transpose(1, 2).reshape(len(x), 8, 24))[0]
            return self.head(self.drop(self.attention(x, x, x)[0][:, -1]))
    def build(num_classes):
        return Model(num_classes)
"""


def test_without_dropout_a_model_in_training_gives_the_same_twice(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(textwrap.dedent(MODEL))
    spec = Spec(model=f"{tmp_path}/m.py:build", data="synthetic", image_size=8, train_limit=8, test_limit=2, dropout=False)
    dataset = data.load(spec)
    model, images = job.seeded_model(spec, dataset).train(), torch.randn(4, 3, 8, 8)
    assert torch.equal(model(images), model(images))
    dropping = job.seeded_model(Spec(model=spec.model), dataset).train()
    assert not torch.equal(dropping(images), dropping(images))
