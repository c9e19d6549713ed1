"""Where the specification lies that comes with Nightjar."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TESTCASES"]

TESTCASES = Path(__file__).resolve().parents[2] / "testcases"
"""The folder of the cases that come with Nightjar."""
