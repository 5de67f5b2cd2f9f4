"""scalelab measures, explains and predicts how the training of image classifiers scales."""

__version__ = "0.1.0"
