"""The scenes of the benchmark, small."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench" / "bench_diasource.py"


@pytest.fixture(scope="session")
def lab():
    """The module that makes synthetic differences."""
    spec = importlib.util.spec_from_file_location("bench_diasource", BENCH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_diasource"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def field(lab):
    """A field of isolated stars of both signs: scene, positions, fluxes and the result."""
    from pipeline import diasource

    rng = np.random.default_rng(11)
    star = lab.Star()
    image, variance = lab.blank((600, 640), rng)
    at = lab.grid(image.shape, 48, rng)
    snr = lab.log_uniform(8, 300, len(at), rng)
    flux = np.where(rng.random(len(at)) < 0.3, -1, 1) * snr * star.sigma_flux()
    lab.add(image, variance, star, at, flux, rng)
    scene = lab.scene(image, variance, star, rng)
    result = diasource.run(scene.difference, scene.science, scene.template)
    return scene, at, flux, result
