"""Engine horovod: data parallelism with Horovod's own all-reduce in place of torch's."""

from scalelab.errors import NotApplicable

try:
    from horovod.torch import init as _init  # noqa: F401  # its package can be imported without its compiled part
except ImportError as error:
    raise NotApplicable(f"--engine horovod: it was built for another torch ({error}): `make engines` builds it anew") from None
