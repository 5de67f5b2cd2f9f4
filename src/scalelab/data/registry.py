"""From ``spec.data`` to a data set."""

from __future__ import annotations

from dataclasses import replace

from scalelab import userfile
from scalelab.data import cifar, digits, folder, hub, svhn, synthetic, synthetic_clips, user
from scalelab.data.dataset import Dataset, Loader, Progress, silent
from scalelab.errors import ScalelabError, unknown
from scalelab.spec import Spec

DATA: dict[str, Loader] = {
    "digits": digits.load,
    "cifar10": cifar.load10,
    "cifar100": cifar.load100,
    "svhn": svhn.load,
    "synthetic": synthetic.load,
    "synthetic-clips": synthetic_clips.load,
}
AT_PATH: dict[str, Loader] = {"folder": folder.load, "parquet": hub.load}
"""what stands before ``:PATH``"""


def load(spec: Spec, progress: Progress = silent) -> Dataset:
    """The data set ``spec.data``, cut to ``spec.train_limit`` and ``spec.test_limit``; ``resize`` is that of the spec.

    ``progress`` is told in short lines what takes long. Raises ScalelabError in one line for everything that can be
    wrong with the name, the files or the user's function.
    """
    loader = _loader(spec.data)
    if spec.stream == "always" and loader not in AT_PATH.values():
        streamed = " and ".join(f"{kind}:PATH" for kind in AT_PATH)
        raise ScalelabError(f"--stream always: data '{spec.data}' is always in memory; {streamed} can be streamed")
    dataset = loader(spec, progress).limited(spec.train_limit, spec.test_limit)
    height, width = dataset.train.images.shape[-3:-1]
    return dataset if spec.resize in (None, height) and spec.resize in (None, width) else replace(dataset, resize=spec.resize)


def _loader(name: str) -> Loader:
    if userfile.is_reference(name):
        return user.load
    kind, _, path = name.partition(":")
    if path and kind in AT_PATH:
        return AT_PATH[kind]
    if name in DATA:
        return DATA[name]
    raise unknown("data", name, [*DATA, *(f"{kind}:PATH" for kind in AT_PATH)], " or path/to/file.py:function")
