"""World coordinates: corrections folded in exactly, refraction told from distortion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import erfa
import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.calibrate.astrometry import fit_astrometry, image_centre
from pipeline.calibrate.refcat import earth_position, reference_stars
from pipeline.calibrate.tpv import Coordinates
from pipeline.errors import InputError
from pipeline.sphere import deproject, project
from pipeline.wcs import to_header

SHAPE = (4096, 2048)
MJD = 57071.2
Maker = Callable[..., Any]


def _separation(one: WCS, two: WCS) -> float:
    """Largest distance of two sets of coordinates over the image, mas."""
    x, y = (a.ravel() for a in np.mgrid[0 : SHAPE[1] : 15j, 0 : SHAPE[0] : 15j])
    ra, dec = one.all_pix2world(x, y, 0)
    east, north = (project(*two.all_pix2world(x, y, 0), (ra[0], dec[0]))
                   - project(ra, dec, (ra[0], dec[0]))).T  # fmt: skip
    return float(np.hypot(east, north).max() * 3.6e6)


def _catalogue(wcs: WCS, x: Any, y: Any, colour: Any = None) -> pa.Table:
    ra, dec = wcs.all_pix2world(x, y, 0)
    flux = np.linspace(2e6, 1e4, len(x))
    columns = {"ra": ra, "dec": dec, "raErr": 0.5 + 0 * ra, "decErr": 0.5 + 0 * ra, "gFlux": flux}
    if colour is not None:
        columns["rFlux"] = flux * 10 ** (0.4 * colour)
    return pa.table(columns)


def _stars(wcs: WCS, table: pa.Table) -> Any:
    return reference_stars(table, "g", MJD, image_centre(wcs, SHAPE), 0.3)


def _moved(wcs: WCS, kind: str, offset: tuple[float, float], angle: float) -> WCS:
    at = Coordinates.of(wcs)
    shift = np.array(offset) / 3600.0
    assert kind in to_header(wcs)["CTYPE1"]
    return at.turned(image_centre(wcs, SHAPE), shift, np.radians(angle)).wcs


@pytest.mark.parametrize("kind", ["TAN", "TPV"])
@pytest.mark.parametrize("n", [5, 20, 80, 300])
def test_sixty_arcseconds_and_half_a_degree_are_undone(sky_wcs: Maker, kind: str, n: int) -> None:
    true = sky_wcs(SHAPE, kind)
    rng = np.random.default_rng(n)
    x, y = rng.uniform(20, SHAPE[1] - 20, n), rng.uniform(20, SHAPE[0] - 20, n)
    header = _moved(true, kind, (40.0, -45.0), 0.45)

    fit = fit_astrometry(header, SHAPE, x, y, np.full(n, 5.0), _stars(true, _catalogue(true, x, y)))

    assert len(fit) == n
    assert _separation(true, fit.wcs) < 1.0
    assert fit.offset == pytest.approx(np.hypot(40.0, 45.0), abs=3.0)


def test_a_header_without_distortion_is_bent_to_the_sky(sky_wcs: Maker) -> None:
    true = sky_wcs(SHAPE, "TPV")
    plain = Coordinates.of(true)
    header = Coordinates(plain.crval, plain.crpix, plain.cd, None, None)
    ra, dec = image_centre(true, SHAPE)
    offset = project(ra, dec, image_centre(header.wcs, SHAPE))
    header = header.turned(image_centre(header.wcs, SHAPE), offset, 0.0)
    rng = np.random.default_rng(4)
    x, y = rng.uniform(0, SHAPE[1], 400), rng.uniform(0, SHAPE[0], 400)

    fit = fit_astrometry(
        header.wcs, SHAPE, x, y, np.full(400, 5.0), _stars(true, _catalogue(true, x, y))
    )

    assert fit.order == 3
    assert to_header(fit.wcs)["CTYPE1"] == "RA---TPV"
    assert _separation(true, fit.wcs) < 5.0


def test_the_result_survives_the_way_through_a_header(sky_wcs: Maker) -> None:
    true = sky_wcs(SHAPE, "TPV")
    rng = np.random.default_rng(4)
    x, y = rng.uniform(0, SHAPE[1], 80), rng.uniform(0, SHAPE[0], 80)
    fit = fit_astrometry(true, SHAPE, x, y, np.full(80, 5.0), _stars(true, _catalogue(true, x, y)))

    text = to_header(fit.wcs).tostring()

    assert _separation(WCS(fits.Header.fromstring(text)), fit.wcs) < 1e-3


def test_errors_average_down(sky_wcs: Maker) -> None:
    """With fifty stars of 10 mas the coordinates are good to a few mas, and the rms says ten."""
    true = sky_wcs(SHAPE, "TPV")
    offsets, rms = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(0, SHAPE[1], 60), rng.uniform(0, SHAPE[0], 60)
        noise = rng.normal(0.0, 10.0 / 262.6, (2, 60))
        fit = fit_astrometry(true, SHAPE, x + noise[0], y + noise[1], np.full(60, 6.0),
                             _stars(true, _catalogue(true, x, y)))  # fmt: skip
        rms.append(fit.rms)
        offsets.append(_separation(true, fit.wcs))

    assert np.mean(rms) == pytest.approx(9.5, abs=1.0)
    assert max(offsets) < 25.0


def test_refraction_is_told_by_colour(sky_wcs: Maker) -> None:
    true = sky_wcs(SHAPE, "TPV")
    rng = np.random.default_rng(6)
    x, y = rng.uniform(0, SHAPE[1], 80), rng.uniform(0, SHAPE[0], 80)
    colour = rng.normal(0.8, 0.4, 80)
    ra, dec = true.all_pix2world(x, y, 0)
    shifted = true.all_world2pix(ra, dec + 60.0 * (colour - np.median(colour)) / 3.6e6, 0)
    table = _catalogue(true, x, y, colour)

    fit = fit_astrometry(true, SHAPE, *shifted, np.full(80, 5.0), _stars(true, table))

    assert fit.chromatic[1] == pytest.approx(60.0, abs=1.0)
    assert fit.chromatic[0] == pytest.approx(0.0, abs=1.0)
    assert max(fit.rms) < 2.0


def test_coordinates_are_those_of_the_colour_of_the_stars_on_the_image(sky_wcs: Maker) -> None:
    true = sky_wcs(SHAPE, "TPV")
    rng = np.random.default_rng(7)
    x, y = rng.uniform(-150, SHAPE[1] + 150, 240), rng.uniform(-150, SHAPE[0] + 150, 240)
    on_image = (x >= 0) & (x < SHAPE[1]) & (y >= 0) & (y < SHAPE[0])
    colour = rng.normal(0.8, 0.4, 240) + 0.6 * ~on_image
    ra, dec = true.all_pix2world(x, y, 0)
    excess = colour - np.median(colour[on_image])
    shifted = true.all_world2pix(ra, dec + 60.0 * excess / 3.6e6, 0)
    table = _catalogue(true, x, y, colour)

    fit = fit_astrometry(
        true, SHAPE, *(k[on_image] for k in shifted), np.full(on_image.sum(), 5.0),
        _stars(true, table),
    )  # fmt: skip

    assert on_image.sum() < 200
    assert _separation(true, fit.wcs) < 1.0


@pytest.mark.parametrize("kind", ["TAN", "TPV"])
def test_maps_of_the_plane_are_exact(sky_wcs: Maker, kind: str) -> None:
    at = Coordinates.of(sky_wcs(SHAPE, kind))
    linear, constant = np.array([[1.001, 0.002], [-0.003, 0.999]]), np.array([1e-3, -2e-3])
    x, y = np.array([3.0, 900.0, 2000.0]), np.array([4000.0, 50.0, 2222.0])

    mapped = at.mapped(linear, constant)

    assert mapped.plane(x, y) == pytest.approx(at.plane(x, y) @ linear.T + constant, abs=1e-11)


def test_projection_and_back() -> None:
    ra, dec = np.array([10.0, 11.0, 9.5]), np.array([-30.0, -29.5, -31.0])

    back = deproject(project(ra, dec, (10.2, -30.1)), (10.2, -30.1))

    assert back[0] == pytest.approx(ra, abs=1e-11)
    assert back[1] == pytest.approx(dec, abs=1e-11)


def test_proper_motion_is_carried_to_the_epoch() -> None:
    table = pa.table(
        {
            "ra": [10.0], "dec": [60.0], "pmRa": [100.0], "pmDec": [-50.0], "raErr": [1.0],
            "decErr": [1.0], "pmRaErr": [1.0], "pmDecErr": [1.0], "parallax": [None],
            "epochMjdTai": [MJD - 10 * 365.25], "gFlux": [1.0],
        },
        schema=None,
    )  # fmt: skip
    table = table.set_column(8, "parallax", pa.array([None], pa.float64()))

    star = reference_stars(table, "g", MJD, (10.0, 60.0), 0.1)

    assert (star.ra[0] - 10.0) * 3.6e6 * np.cos(np.radians(60.0)) == pytest.approx(1000.0, abs=0.1)
    assert (star.dec[0] - 60.0) * 3.6e6 == pytest.approx(-500.0, abs=0.1)
    assert star.err[0] == pytest.approx(np.sqrt(101.0))


def test_parallax_moves_stars_round_an_ellipse() -> None:
    """At the pole of the ecliptic the ellipse is a circle."""
    table = pa.table({"ra": [270.0], "dec": [66.5607], "parallax": [100.0], "epochMjdTai": [MJD]})
    radii = []
    for day in range(0, 365, 30):
        star = reference_stars(table, "g", MJD + day, (270.0, 66.5607), 0.1)
        east = (star.ra[0] - 270.0) * np.cos(np.radians(66.5607)) * 3.6e6
        radii.append(np.hypot(east, (star.dec[0] - 66.5607) * 3.6e6))

    assert radii == pytest.approx(np.full(len(radii), 100.0), rel=0.02)


def test_earth_agrees_with_an_ephemeris() -> None:
    heliocentric, _ = erfa.epv00(2400000.5, MJD)

    assert earth_position(MJD) == pytest.approx(tuple(heliocentric["p"]), abs=5e-4)


def test_catalogue_without_positions_is_refused() -> None:
    with pytest.raises(InputError, match="dec"):
        reference_stars(pa.table({"ra": [1.0]}), "g", MJD, (1.0, 1.0), 1.0)
