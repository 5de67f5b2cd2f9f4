"""What a fork server imports before it forks processes of a training: else each of them would, the check before it and every rank."""

from __future__ import annotations

from scalelab import strategies
from scalelab.spec import Spec
from scalelab.userfile import is_reference

TIMM, TORCHVISION = "timm", "torchvision.models"
MODELS = {"timm": TIMM, "torchvision": TORCHVISION, "vit_s": TIMM} | dict.fromkeys(
    ("vgg16", "alexnet", "inception_v3", "resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0"), TORCHVISION
)
"""the library that a model comes from, by the model's name or by what stands before its colon"""
OPTIMIZERS = dict.fromkeys(("lars", "lamb"), "scalelab.optim.layerwise")


def of_checks(spec: Spec) -> list[str]:
    """Modules for a process that makes the model and asks the strategy: all but the engine, which only ranks start."""
    where = strategies.entry(spec.strategy).where.get(spec.engine, "") if spec.engine == "torch" else ""
    module = where.partition(":")[0]
    own = [f"{strategies.__name__}.{module}"] if module and not is_reference(where) else []
    libraries = [MODELS.get(spec.model.partition(":")[0]), OPTIMIZERS.get(spec.optimizer)]
    return [*own, *dict.fromkeys(library for library in libraries if library is not None)]


def of_ranks(spec: Spec) -> list[str]:
    """Modules for a rank."""
    return [*strategies.ENGINES[spec.engine].preload, *of_checks(spec)]
