"""``python -m scalelab.worker SPEC.yaml``: one rank, placed by torchrun's variables."""

import os
import sys

from scalelab.worker.main import rank

if __name__ == "__main__":
    status = rank(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a failed rank must not wait for its peers in the interpreter's exit
