"""Initial weights from files: the forms that are read, what fits a model, and what is refused."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scalelab import models
from scalelab.errors import ScalelabError
from scalelab.models import weights
from scalelab.spec import Spec

Tensors = dict[str, Tensor]


def build(classes: int = 4, seed: int = 0, model: str = "basic_cnn", **model_args: object) -> nn.Module:
    torch.manual_seed(seed)
    given = model_args or ({"width": 2} if model == "basic_cnn" else {})
    return models.build(Spec(model=model, model_args=given), classes, (3, 8, 8))


def equal(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refuse(file: Path, *parts: str) -> None:
    with pytest.raises(ScalelabError) as caught:
        weights.read(file)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in (str(file), *parts) if part not in message] == []


def misfit(model: nn.Module, tensors: Tensors, classes: int, *parts: str, hint: str = "") -> None:
    with pytest.raises(ScalelabError) as caught:
        weights.match(model, tensors, classes, "w.pt", hint)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in ("--weights w.pt", *parts) if part not in message] == []


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: OrderedDict(state),
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}, "optimizer": {}},
    ],
    ids=["plain", "ordered", "state_dict", "model-module", "compiled"],
)
@pytest.mark.parametrize("suffix", ["pt", "pth"])
def test_torchs_files_are_read_through_the_usual_wrappers(tmp_path, wrap, suffix):
    state, file = build().state_dict(), tmp_path / f"w.{suffix}"
    torch.save(wrap(state), file)
    assert equal(weights.read(file), state)


def test_safetensors_are_read(tmp_path):
    state, file = build().state_dict(), tmp_path / "w.safetensors"
    save_file(state, file)
    assert equal(weights.read(file), state)


def test_of_a_checkpoint_only_the_model_is_read(tmp_path):
    state, file = build().state_dict(), tmp_path / "step-00000001.safetensors"
    kept = {f"model/{name}": value for name, value in state.items()}
    save_file({**kept, "optimizer/0.weight/momentum_buffer": torch.ones(2)}, file)
    assert equal(weights.read(file), state)


def test_nothing_but_tensors_is_loaded(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    refuse(tmp_path / "whole.pt", "holds more than tensors", "state_dict()")
    for name, form in (("timm.pth", True), ("old.pth", False)):
        held = {"args": argparse.Namespace(lr=1), "state_dict": build().state_dict()}
        torch.save(held, tmp_path / name, _use_new_zipfile_serialization=form)
        refuse(tmp_path / name, "holds more than tensors")


def test_files_that_hold_no_weights_are_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    refuse(tmp_path / "w.pt", "holds no names with tensors", "state_dict")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    refuse(tmp_path / "list.pt", "holds no names with tensors")
    refuse(tmp_path / "gone.pt", "cannot be read", "No such file")
    refuse(tmp_path / "gone.safetensors", "cannot be read", "No such file")
    refuse(tmp_path / "w.h5", "'.h5'", "valid: .safetensors, .pt, .pth")


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 40, 0.5])
def test_a_damaged_file_is_told(tmp_path, name, keep):
    file = tmp_path / name
    if name.endswith("safetensors"):
        save_file(build().state_dict(), file)
    else:
        torch.save(build().state_dict(), file)
    body = file.read_bytes()
    file.write_bytes(body[: keep if isinstance(keep, int) else int(keep * len(body))])
    refuse(file, "is damaged")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_are_told_wherever_they_are(tmp_path):
    """torch's reader of its former format raises struct.error, IndexError, TypeError, AssertionError on such."""
    file, random = tmp_path / "w.pth", Random(0)
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=False)
    body = file.read_bytes()
    for _ in range(300):
        damaged = bytearray(body)
        for _ in range(random.randint(1, 6)):
            damaged[random.randrange(len(body))] = random.randrange(256)
        file.write_bytes(damaged)
        with suppress(ScalelabError):
            weights.read(file)


def test_a_mapping_that_holds_itself_ends(tmp_path):
    held: dict[str, object] = {"epoch": 3}
    held["model"] = held
    torch.save(held, tmp_path / "w.pt")
    refuse(tmp_path / "w.pt", "holds no names with tensors")


def test_a_model_takes_all_that_has_its_names_and_shapes():
    model, other = build(), build(seed=1)
    weights.take(model, weights.match(model, other.state_dict(), 4, "w.pt"))
    assert equal(model.state_dict(), other.state_dict())


def test_weights_of_another_type_take_the_models():
    model, other = build(), build(seed=1)
    weights.take(
        model,
        weights.match(model, {n: v.bfloat16() if v.is_floating_point() else v for n, v in other.state_dict().items()}, 4, ""),
    )
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, other[0].weight.bfloat16().float())


def test_a_head_for_another_number_of_classes_keeps_its_initial_values():
    model, other, untouched = build(4), build(9, seed=1), build(4)
    found = weights.match(model, other.state_dict(), 4, "w.pt")
    weights.take(model, found)
    assert (found.left, found.classes) == (("13.weight", "13.bias"), 9)
    assert torch.equal(model[0].weight, other[0].weight)
    assert torch.equal(model[13].weight, untouched[13].weight)


def test_files_from_before_batch_norm_counted_fit():
    model, other = build(), build(seed=1)
    old = {name: value for name, value in other.state_dict().items() if not name.endswith("num_batches_tracked")}
    weights.take(model, weights.match(model, old, 4, "w.pt"))
    assert torch.equal(model[0].weight, other[0].weight)


def test_published_extra_heads_are_left_out():
    model = build()
    found = weights.match(model, {**model.state_dict(), "AuxLogits.fc.weight": torch.ones(2)}, 4, "w.pt")
    assert found.dropped == ("AuxLogits.fc.weight",)


def test_what_else_does_not_fit_is_told_with_the_nearest_name():
    model, state = build(model="odd:tied"), build(model="odd:tied").state_dict()
    renamed = {("frist.bias" if name == "first.bias" else name): value for name, value in state.items()}
    misfit(model, renamed, 4, "it has no 'first.bias'", "did you mean 'frist.bias'")
    misfit(model, {**state, "last.wieght": torch.ones(2)}, 4, "the model has no 'last.wieght'", "did you mean 'last.weight'")
    misfit(build(width=3), build(width=2).state_dict(), 4, "'0.weight' is [2, 3, 3, 3] there and [3, 3, 3, 3]", "more differ")


def test_two_heads_of_different_numbers_of_classes_do_not_fit():
    def two(first: int, second: int) -> nn.Module:
        return nn.ModuleDict({"a": nn.Linear(3, first), "b": nn.Linear(3, second)})

    misfit(two(4, 4), two(5, 6).state_dict(), 4, "'a.weight' is [5, 3] there")


def test_the_hint_is_for_a_variant_of_the_same_model_only():
    model = build(model="resnet18")
    with torch.device("meta"):
        original = models.build(Spec(model="resnet18"), 4, (3, 224, 224)).state_dict()
    misfit(model, original, 4, "'conv1.weight' is [64, 3, 7, 7] there and [64, 3, 3, 3] in the model; resize", hint="; resize")
    with pytest.raises(ScalelabError) as caught:
        weights.match(model, build().state_dict(), 4, "w.pt", "; resize")
    assert "resize" not in str(caught.value)


def test_values_that_cannot_be_trained_from_are_refused():
    model, state = build(), build().state_dict()
    misfit(model, {**state, "0.weight": state["0.weight"].fill_(float("nan"))}, 4, "'0.weight' holds values that are not finite")
    misfit(model, {**state, "0.weight": torch.ones(2, 3, 3, 3, dtype=torch.int8)}, 4, "'0.weight' is of type int8")
