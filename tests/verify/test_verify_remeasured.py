"""Fluxes and errors measured anew from pixels: known answers, and tables that do not agree."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import fourier_shift

from harness.verify.metrics import remeasured
from pipeline.masks import bits

from .conftest import gaussian_psf

FLUX, NULL = 4000.0, 16.0


@pytest.fixture
def view(exposure):
    """A white difference with two dozen points of known place and flux, and their tables."""
    made = exposure(1, seed=5)
    psf = gaussian_psf()
    places = [(20.3 + 40 * i, 24.7 + 40 * j) for i in range(6) for j in range(4)]
    x, y = np.array(places).T
    image = made.image.astype(float)
    for u, v in places:
        i, j = round(u), round(v)
        stamp = psf.at(u, v)
        moved = np.fft.ifft2(fourier_shift(np.fft.fft2(stamp), (v - j, u - i))).real
        image[j - 12 : j + 13, i - 12 : i + 13] += FLUX * moved
    made = made.replace(image=image.astype(np.float32), psf=psf)
    difference = SimpleNamespace(exposure=made, null_variance=np.full(made.shape, NULL))
    error = (NULL / (psf.at(0, 0) ** 2).sum()) ** 0.5
    n = len(x)
    no = np.zeros(n, bool)
    sources = {
        "x": x, "y": y, "snr": np.full(n, FLUX / error), "psfFlux": np.full(n, FLUX),
        "psfFluxErr": np.full(n, error), "isSubThreshold": no, "isDipole": no, "isTrailed": no,
        "psfFlux_flag": no, "centroid_flag": no, "isDeblendParent": no, "apFlux_flag": no,
        "parentDiaSourceId": np.full(n, -1), "templateFlux": np.zeros(n),
        "xErr": np.full(n, 0.1), "yErr": np.full(n, 0.1),
    }  # fmt: skip
    return SimpleNamespace(difference=difference, excluded_bits=bits("SAT"), sources=sources)


def test_known_fluxes_come_out_with_their_errors(view):
    flux, error = remeasured._psf_flux(view, view.sources["x"], view.sources["y"])

    assert error == pytest.approx(view.sources["psfFluxErr"], rel=0.01)
    pulls = (flux - FLUX) / error
    assert abs(pulls.mean()) < 4 / len(pulls) ** 0.5
    assert 0.6 < pulls.std() < 1.4


@pytest.mark.parametrize("scale", [0.97, 1.0, 1.03])
def test_a_scale_of_the_table_shows(view, scale):
    view.sources["psfFlux"] = scale * view.sources["psfFlux"]

    got = remeasured.flux_remeasured(view)

    assert got.n == 24
    assert got.value == pytest.approx(100 * (scale - 1), abs=0.5)


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.2])
def test_a_scale_of_the_errors_shows(view, scale):
    view.sources["psfFluxErr"] = scale * view.sources["psfFluxErr"]

    got = remeasured.pixel_error_remeasured(view, of="flux", snr_max=1e9)

    assert got.value == pytest.approx(100 * (scale - 1), abs=2.0)


def test_a_masked_source_is_left_out(view):
    view.difference.exposure.mask[24, 20] |= np.uint32(bits("SAT"))

    assert remeasured.flux_remeasured(view).n == 23


def test_without_sources_nothing_was_tested(view):
    view.sources = {name: column[:0] for name, column in view.sources.items()}

    assert remeasured.flux_remeasured(view).n == 0
    assert remeasured.pixel_error_remeasured(view).n == 0
