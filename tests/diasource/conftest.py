"""The scenes of the benchmark, small."""

import numpy as np
import pytest

from bench import bench_diasource


@pytest.fixture(scope="session")
def lab():
    """The module that makes synthetic differences."""
    return bench_diasource


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
