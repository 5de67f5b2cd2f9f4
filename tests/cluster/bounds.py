"""How long tests on the cluster wait."""

from __future__ import annotations

BOUND = 30.0
"""seconds in which all that was started has ended, whatever broke: scalelab's own promise"""
PATIENCE = 120.0
"""seconds for what comes sooner or later, on a machine of whatever speed: no promise of anybody's"""
