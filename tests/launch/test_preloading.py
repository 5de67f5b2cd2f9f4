"""What the fork server imports for a training: all that its processes would, and nothing that starts a thread."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scalelab import spec as specs
from scalelab import strategies
from scalelab.launch import preloading

LOOK = """
import importlib, os, sys
import torch
import scalelab.worker.preload
from scalelab.launch import preloading
from scalelab.models.registry import CLIP, MODELS, make
from scalelab.spec import Spec

def libraries():
    return {name for name in sys.modules if name.partition(".")[0] in ("torchvision", "timm")}

def look(spec, shape):
    asked = preloading.of_checks(spec)
    for name in asked:
        if not name.startswith("scalelab.strategies"):
            importlib.import_module(name)
    threads, before = len(os.listdir("/proc/self/task")), libraries()
    with torch.device("meta"):
        make(spec.model, {}, 10, shape)
    if spec.optimizer != "sgd":
        importlib.import_module("scalelab.optim.layerwise")
    if threads > 1 or libraries() != before:
        print(spec.model, spec.optimizer, threads, "threads; imported later:", *sorted(libraries() - before)[:3], flush=True)

for name in [*MODELS, "torchvision:resnet34", "timm:resnet10t"]:
    clips = name in MODELS and MODELS[name].takes == (CLIP,)
    for optimizer in ("lars", "sgd") if name == "basic_cnn" else ("sgd",):
        pid = os.fork()
        if pid == 0:
            look(Spec(model=name, optimizer=optimizer), (4, 3, 299, 299) if clips else (3, 299, 299))
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            print(name, optimizer, "failed", flush=True)
"""


def test_what_a_model_and_an_optimizer_need_is_imported_before_and_starts_no_thread() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("name", strategies.STRATEGIES)
def test_the_strategy_is_imported_before(name: str) -> None:
    module = strategies.load(name, "torch").__module__
    assert preloading.of_checks(specs.from_mapping({"strategy": name}))[0] == module


def test_an_engine_is_imported_for_ranks_alone() -> None:
    spec = specs.from_mapping({"strategy": "zero1", "engine": "deepspeed"})
    assert preloading.of_ranks(spec) == list(strategies.ENGINES["deepspeed"].preload)
    assert preloading.of_checks(spec) == []


def test_a_file_of_the_user_is_not_imported() -> None:
    assert preloading.of_ranks(specs.from_mapping({"strategy": "my/own.py:Mine", "model": "my/own.py:net"})) == []
