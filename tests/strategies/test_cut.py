"""Cutting models into stages: the stages in a row are the model, for every family; places that would be wrong are no places."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from scalelab.errors import NotApplicable
from scalelab.strategies.stages import cut, tracing
from scalelab.strategies.stages.cut import Cut, Stage

FAMILIES: dict[str, dict[str, object]] = {
    "alexnet": {}, "convnext_tiny": {}, "densenet121": {}, "efficientnet_b0": {}, "mnasnet0_5": {}, "mobilenet_v2": {},
    "mobilenet_v3_small": {}, "regnet_y_400mf": {}, "resnet18": {}, "resnet50": {}, "shufflenet_v2_x0_5": {}, "squeezenet1_1": {},
    "swin_t": {}, "vgg11_bn": {}, "vit_b_32": {"image_size": 32},
    "googlenet": {"aux_logits": False, "init_weights": False}, "inception_v3": {"aux_logits": False, "init_weights": False},
    "timm:convnext_atto": {}, "timm:edgenext_xx_small": {}, "timm:efficientnet_lite0": {}, "timm:ghostnet_050": {"drop_rate": 0.0},
    "timm:hrnet_w18_small": {}, "timm:levit_128s": {"img_size": 64}, "timm:mixer_s32_224": {"img_size": 32},
    "timm:mobilenetv4_conv_small": {}, "timm:nfnet_l0": {}, "timm:poolformer_s12": {}, "timm:regnetx_002": {}, "timm:resnet10t": {},
    "timm:resnetv2_50": {"layers": (1, 1, 1, 1)}, "timm:vit_tiny_patch16_224": {"img_size": 32},
}  # fmt: skip
SIZES = {
    "alexnet": 64,
    "inception_v3": 75,
    "maxvit_t": 56,
    "squeezenet1_1": 48,
    "timm:levit_128s": 64,
    "timm:edgenext_xx_small": 64,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(name: str, arguments: dict[str, object]) -> nn.Module:
    """The model, without randomness inside."""
    torch.manual_seed(0)
    library, _, rest = name.rpartition(":")
    model = (
        timm.create_model(rest, num_classes=3, **arguments)
        if library
        else torchvision.models.get_model(name, num_classes=3, **arguments)
    )
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
    return model


def places_of(model: nn.Module, images: Tensor) -> tuple[cut.Traces, list[Cut]]:
    """The trace, and the places at which a tensor passes on."""
    traces = tracing.trace(model)
    return traces, cut.passing(model, traces, images)[0]


def through(stages: Sequence[nn.Module], x: Tensor) -> Tensor:
    for stage in stages:
        x = stage(x)
    return x


def equal(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> bool:
    return all(
        (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y)) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_stages_in_a_row_are_the_model(name: str) -> None:
    whole = made(name, FAMILIES[name])
    model = copy.deepcopy(whole)
    size = SIZES.get(name, 32)
    images = torch.randn(2, 3, size, size)
    traces, cuts = places_of(model, images)
    assert len(cuts) >= 7, "eight stages at least"
    stages = cut.build(model, traces, [cuts[len(cuts) * k // 4] for k in (1, 2, 3)])
    for module in (whole, *stages):
        module.train()
    expected, found = whole(images), through(stages, images)
    assert torch.equal(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    parts = {name: value for stage in stages for name, value in stage.named_parameters(remove_duplicate=False)}
    names = dict(whole.named_parameters(remove_duplicate=False))
    assert parts.keys() == names.keys()
    assert equal([p.grad for p in names.values()], [parts[n].grad for n in names])
    state = {name: value for stage in stages for name, value in stage.state_dict().items()}
    assert state.keys() == whole.state_dict().keys()
    assert equal(list(whole.state_dict().values()), [state[n] for n in whole.state_dict()])
    for module in (whole, *stages):
        module.eval()
    assert torch.equal(through(stages, images[:1]), whole(images[:1])), "evaluation, of another batch size"


class Tied(nn.Module):
    """b has a's weight; between them and before c are places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(4))
        self.b.weight = self.a.weight
        self.extra = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(self.b(self.a(self.first(x))))
        return out


def test_tied_weights_are_not_parted() -> None:
    _, cuts = places_of(Tied(), torch.randn(2, 4))
    assert [c.name for c in cuts] == ["a", "c"]


def test_a_batch_norm_that_is_called_twice_is_not_parted_from_itself() -> None:
    norm = nn.BatchNorm1d(4)
    _, cuts = places_of(nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 4), norm, nn.Linear(4, 4)), torch.randn(2, 4))
    assert [c.names for c in cuts] == [("1",), ("4",)]


def test_what_the_forward_does_not_use_is_kept_by_the_last_stage() -> None:
    model = Tied()
    traces, cuts = places_of(model, torch.randn(2, 4))
    first, last = cut.build(model, traces, cuts[:1])
    assert set(first.state_dict()) == {"first.weight", "first.bias"}
    assert {"extra.weight", "extra.bias", "b.weight"} <= set(last.state_dict())


class Split(nn.Module):
    """A tuple passes between its two halves."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.chunk(self.a(x), 2, dim=1)
        out: Tensor = self.b(torch.cat([right, left], 1))
        return out


def test_a_tuple_is_no_tensor() -> None:
    traces, cuts = places_of(Split(), torch.randn(2, 4))
    after = [str(traces[True].computing[c.before[True]].target) for c in cuts]
    assert len(cuts) == 2
    assert not any("chunk" in name for name in after)


class Moody(nn.Module):
    """Its forward reads ``self.training``."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.aside = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        x = self.a(x) * scale
        if self.training:
            x = self.aside(x)
        out: Tensor = self.b(x)
        return out


def test_training_and_evaluation_are_each_traced() -> None:
    model = Moody()
    whole, images = copy.deepcopy(model), torch.randn(2, 4)
    traces, cuts = places_of(model, images)
    stages = cut.build(model, traces, [c for c in cuts if c.names == ("aside",)])
    assert len(stages) == 2
    for training in (True, False):
        for module in (whole, *stages):
            module.train(training)
        assert torch.equal(through(stages, images), whole(images))


class Choosy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_control_flow_by_values_is_told() -> None:
    with pytest.raises(tracing.Untraceable, match="control flow"):
        tracing.trace(Choosy())


@pytest.mark.parametrize(
    ("seconds", "stages", "expected"),
    [([1, 1, 1, 1], 2, [1]), ([4, 1, 1, 1, 1], 2, [0]), ([1, 1, 1, 5, 1], 3, [2, 3]), ([1.0] * 3, 3, [0, 1]), ([2.0], 1, [])],
)
def test_the_slowest_stage_is_as_fast_as_can_be(seconds: list[float], stages: int, expected: list[int]) -> None:
    assert cut.balanced(seconds, stages) == expected


def test_names_say_where_stages_begin() -> None:
    model = made("resnet18", {})
    _, cuts = places_of(model, torch.randn(2, 3, 32, 32))
    chosen = cut.at("layer2, layer3.1", cuts, 3, model)
    assert [cuts[index].names[-1] for index in chosen] == ["layer2.0", "layer3.1"]


@pytest.mark.parametrize(
    ("split", "stages", "said"),
    [
        (
            "layer9",
            2,
            r"'layer9' is no module of the model \(did you mean 'layer.'\?\); a stage can begin at bn1, relu, maxpool, layer1",
        ),
        ("layer1.0.conv2", 2, "'layer1.0.conv2' is not where exactly one tensor passes on; a stage can begin at"),
        ("conv1", 2, "'conv1' is not where exactly one tensor passes on"),
        ("layer2", 3, "names 1 beginnings, and 3 stages have 2"),
        ("layer3,layer2", 3, "in the order in which they are computed"),
        ("layer3,layer3.0", 3, "name each stage's first module once"),
    ],
)
def test_a_split_that_cannot_be_is_refused(split: str, stages: int, said: str) -> None:
    model = made("resnet18", {})
    _, cuts = places_of(model, torch.randn(2, 3, 32, 32))
    with pytest.raises(NotApplicable, match=said):
        cut.at(split, cuts, stages, model)


def test_a_stage_holds_only_its_own() -> None:
    model = made("resnet18", {})
    traces, cuts = places_of(model, torch.randn(2, 3, 32, 32))
    stages = cut.build(model, traces, [cuts[6]])
    held = [{id(p) for p in stage.parameters()} for stage in stages]
    assert not held[0] & held[1]
    assert all(isinstance(stage, Stage) for stage in stages)
