"""``scalelab sweep``."""

from scalelab.cli.sweep.command import run

__all__ = ["run"]
