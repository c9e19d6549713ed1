"""Fluxes and errors measured anew from pixels: known answers, and tables that do not agree."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
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


@pytest.fixture
def coordinates():
    """Pixels of 0.25 arcsec; x goes west, y north."""
    wcs = WCS(naxis=2)
    wcs.wcs.crpix, wcs.wcs.crval, wcs.wcs.cdelt = [128, 128], [150.0, -5.0], [-7e-5, 7e-5]
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    return wcs


@pytest.mark.parametrize("scale", [0.95, 1.0, 1.05])
def test_a_scale_of_the_significance_shows(view, scale):
    score = np.zeros((256, 256))
    x, y = (np.rint(view.sources[n]).astype(int) for n in ("x", "y"))
    score[y, x] = -view.sources["snr"]
    view.difference.score = score
    view.sources["snr"] = scale * view.sources["snr"]

    got = remeasured.significance_remeasured(view)

    assert got.n == 24
    assert got.value == pytest.approx(100 * (scale - 1))


@pytest.mark.parametrize("scale", [0.97, 1.0, 1.03])
def test_a_scale_of_the_fluxes_on_the_visit_image_shows(view, coordinates, scale):
    ra, dec = coordinates.all_pix2world(view.sources["x"], view.sources["y"], 0)
    flux = np.full(24, scale * FLUX)
    view.forced = {"ra": ra, "dec": dec, "scienceFlux": flux, "scienceFluxErr": flux / 100}
    view.visit_image = view.difference.exposure.replace(wcs=coordinates)
    view.visit_image.mask[24, 20] |= np.uint32(bits("SAT"))

    got = remeasured.science_flux_remeasured(view)

    assert got.n == 23
    assert got.value == pytest.approx(100 * (scale - 1), abs=0.5)


@pytest.mark.parametrize(
    ("offset", "bearing"), [((3, 0), -90), ((0, 3), 0), ((-2, -2), 135), ((2, -2), -135)]
)
def test_a_dipole_points_from_its_negative_to_its_positive_lobe(view, coordinates, offset, bearing):
    image, psf = np.zeros((256, 256), np.float32), view.difference.exposure.psf
    for sign, (dx, dy) in ((1, offset), (-1, (0, 0))):
        image[100 + dy - 12 : 113 + dy, 100 + dx - 12 : 113 + dx] += sign * FLUX * psf.at(0, 0)
    view.difference.exposure = view.difference.exposure.replace(image=image, wcs=coordinates)
    found = {"x": np.array([100.0]), "y": np.array([100.0]), "isDipole": np.array([True])}
    turned = ((0, 0), (180, 180), (-30, 30))
    for turn, expected in turned:
        view.sources = {**found, "dipoleAngle": np.array([float(bearing + turn)])}
        got = remeasured.dipoles_remeasured(view)
        assert got.value == pytest.approx(expected, abs=1.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_a_covariance_shows(view, coordinates, sign):
    view.difference.exposure = view.difference.exposure.replace(wcs=coordinates)
    view.settings = SimpleNamespace(diasource=SimpleNamespace(sky_floor=0.0))
    scale, cov = 7e-5, 0.004
    error = np.full(24, 0.1 * scale)
    view.sources |= {
        "x_y_Cov": np.full(24, cov), "raErr": error, "decErr": error,
        "ra_dec_Cov": np.full(24, -sign * cov * scale**2),
    }  # fmt: skip

    got = remeasured.position_error_remeasured(view)

    assert (got.value > 10.0) == (sign < 0)


@pytest.mark.parametrize("side", [51, 52])
@pytest.mark.parametrize(("turned", "wrong"), [(False, 0), (True, 2)])
def test_a_cut_out_is_the_pixels_round_its_source(view, tmp_path, monkeypatch, side, turned, wrong):
    image = view.difference.exposure.image
    padded = np.pad(image, side, constant_values=np.nan)
    x, y = 250, 7  # near an edge
    rows, columns = (c + side - side // 2 + np.arange(side) for c in (y, x))
    pixels = padded[np.ix_(rows, columns)]
    stream = BytesIO()
    fits.PrimaryHDU(pixels[:, ::-1] if turned else pixels).writeto(stream)
    packet = {n: stream.getvalue() for n in ("cutoutDifference", "cutoutScience")}
    packets = [{**packet, "diaSource": {"x": x + 0.3, "y": y - 0.4}}]
    monkeypatch.setattr(remeasured, "read_alerts", lambda files: iter(packets))
    view.visit_image, view.visit, view.number = view.difference.exposure, 1, 1
    (tmp_path / "x").touch()
    view.space = SimpleNamespace(alerts=lambda *unit: tmp_path / "x")

    got = remeasured.cutouts_remeasured(view)

    assert (got.value, got.n) == (wrong, 2)
