"""What a model is, in a process of its own: no data and no training are needed for it."""

from __future__ import annotations

from pathlib import Path

from scalelab import models
from scalelab import spec as specs
from scalelab.errors import ScalelabError
from scalelab.record.schema import ModelFacts
from scalelab.worker import job
from scalelab.worker.asked import answering


def ask(spec_file: str, answer_file: str) -> int:
    """Write the ``ModelFacts`` of the spec's model for RGB images of ``image_size`` in ``classes`` classes, or {"error", "kind"}."""

    def found() -> ModelFacts:
        spec = specs.load(Path(spec_file))
        shape = (3, spec.image_size, spec.image_size)
        try:
            model = models.build(spec, spec.classes, shape)
            models.check_forward(model, shape, spec.classes)
        except ScalelabError as error:  # no data is resized here: the images are of the size that is asked for
            raise ScalelabError(str(error).replace("--resize", "--image-size")) from None
        return job.model_facts(spec, model, shape)

    return answering(answer_file, found)
