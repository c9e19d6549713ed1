"""Shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, and no limit of time: compiled loops are slow at their first call.
settings.register_profile("nightjar", deadline=None, derandomize=True)
settings.load_profile("nightjar")

# One BLAS thread: the tests must not depend on the number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _real(name: str) -> Path:
    root = Path(os.environ.get("NIGHTJAR_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"real pixels not here: set NIGHTJAR_REAL_DATA to the folder that has {name}")
    return folder


@pytest.fixture(scope="session")
def decam_instcal() -> Path:
    """NOIRLab Community Pipeline cut-outs of two fields."""
    return _real("decam_instcal")


@pytest.fixture(scope="session")
def kb13475() -> Path:
    """Sixteen frames of a crowded field in the Galactic bulge."""
    return _real("kb13475")


@pytest.fixture(scope="session")
def rubin_alerts() -> Path:
    """Seven alerts of LSSTCam as a broker passed them on in 2026."""
    return _real("rubin_alerts")
