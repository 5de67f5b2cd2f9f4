"""Parameters that are not trained: ``--freeze 'conv1*,layer1*'``."""

from __future__ import annotations

import fnmatch
from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from scalelab.errors import ScalelabError, nearest


def freeze(model: nn.Module, patterns: str) -> str:
    """Take the parameters whose names match out of the training, in place; what was frozen, in a line.

    ``patterns`` are globs over the model's names, separated by commas. A batch norm all of whose parameters are frozen keeps its running
    statistics too, and normalises by them (without parameters: one whose buffers match). Raises ScalelabError for a pattern that matches
    nothing, and where nothing would be left to train.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    globs = [glob.strip() for glob in patterns.split(",")]
    for glob in globs:
        if not fnmatch.filter(parameters, glob):
            raise ScalelabError(f"--freeze {patterns!r}: no parameter's name matches '{glob}'{_instead(model, glob)}")
    for name, parameter in parameters.items():
        if _any(globs, name):
            parameter.requires_grad_(False)
    kept = list(model.parameters())
    trained = sum(p.numel() for p in kept if p.requires_grad)
    if not trained:
        raise ScalelabError(f"--freeze {patterns!r}: nothing is left to train; leave out at least the last layer")
    norms = [norm for name, norm in model.named_modules() if isinstance(norm, _NormBase) and _frozen(norm, name, globs)]
    for norm in norms:
        norm.eval()
        norm.__dict__["train"] = MethodType(_stay, norm)  # bound, so that a copy of the model has its own
    total = sum(p.numel() for p in kept)
    keep = (
        "a batch norm keeps its running statistics"
        if len(norms) == 1
        else f"{len(norms)} batch norms keep their running statistics"
    )
    statistics = f"; {keep}" if norms else ""
    return f"--freeze {patterns}: {total - trained:,} of {total:,} parameters are not trained{statistics}"


def _stay(norm: nn.Module, mode: bool = True) -> nn.Module:
    """In place of ``train``: what is frozen stays in evaluation mode."""
    return norm


def _frozen(norm: nn.Module, name: str, globs: list[str]) -> bool:
    own = list(norm.parameters(recurse=False))
    if own:
        return not any(p.requires_grad for p in own) and any(_any(globs, f"{name}.{n}") for n, _ in norm.named_parameters())
    return any(_any(globs, f"{name}.{n}") for n, _ in norm.named_buffers())


def _any(globs: list[str], name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _instead(model: nn.Module, glob: str) -> str:
    """What may have been meant: the module of that name with all inside it, or the nearest name."""
    modules = [name for name, module in model.named_modules() if name and any(True for _ in module.parameters())]
    bare = glob.rstrip("*.")
    if bare in modules:
        return f" (did you mean '{bare}.*'?)"
    return nearest(glob, [*(f"{name}.*" for name in modules), *(name for name, _ in model.named_parameters())])
