"""What scalelab promises of the time after a fault, on whatever machine: tests here wait for all else as long as it takes."""

from __future__ import annotations

BOUND = 30.0
"""seconds in which all that was started has ended, whatever broke"""
