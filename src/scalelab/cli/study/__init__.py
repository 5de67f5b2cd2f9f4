"""``scalelab study``."""

from scalelab.cli.study.command import run

__all__ = ["run"]
