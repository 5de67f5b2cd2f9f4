"""From ``spec.data`` to a data set."""

from __future__ import annotations

from scalelab import userfile
from scalelab.data import cifar10, digits, synthetic, user
from scalelab.data.dataset import Dataset, Loader, Progress, silent
from scalelab.errors import unknown
from scalelab.spec import Spec

DATA: dict[str, Loader] = {"digits": digits.load, "cifar10": cifar10.load, "synthetic": synthetic.load}


def load(spec: Spec, progress: Progress = silent) -> Dataset:
    """The data set ``spec.data``, cut to ``spec.train_limit`` and ``spec.test_limit``.

    ``progress`` is told in short lines what takes long. Raises ScalelabError in one line for everything that can be
    wrong with the name, the files or the user's function.
    """
    if userfile.is_reference(spec.data):
        loader: Loader = user.load
    elif spec.data in DATA:
        loader = DATA[spec.data]
    else:
        raise unknown("data", spec.data, DATA, " or path/to/file.py:function")
    return loader(spec, progress).limited(spec.train_limit, spec.test_limit)
