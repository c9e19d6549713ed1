from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from pipeline.sphere import basis, deproject, project, radec, separation, turned, unit_vectors
from pipeline.wcs import jacobian, pixel_scale

CENTRES = [(0.0, 0.0), (359.999, -6.0), (150.1, 89.99), (12.0, -90.0)]


def _around(centre: tuple[float, float], reach: float) -> tuple[np.ndarray, np.ndarray]:
    plane = np.random.default_rng(3).uniform(-reach, reach, (50, 2))
    return deproject(plane, centre)


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("reach", [1e-6, 0.1, 40.0])
def test_separation_is_that_of_astropy(centre, reach) -> None:
    ra, dec = _around(centre, reach)
    expected = SkyCoord(*centre, unit="deg").separation(SkyCoord(ra, dec, unit="deg")).deg

    assert separation(*centre, ra, dec) == pytest.approx(expected, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("tiny", [-1e-15, -1e-17, -1e-300, -0.0, 0.0])
def test_right_ascension_stays_below_a_full_turn(tiny: float) -> None:
    """The remainder of a tiny negative number by 360 is 360."""
    ra, _ = radec(np.array([[1.0, tiny, 0.0]]))
    assert 0.0 <= ra[0] < 360.0
    assert turned(-1e-14) == 0.0
    assert turned([360.0, 725.0, -10.0]).tolist() == [0.0, 5.0, 350.0]
    assert deproject(np.array([[-1e-15, 0.0]]), (0.0, 0.0))[0][0] < 360.0


def test_separation_of_opposite_points() -> None:
    assert separation(10.0, 20.0, 190.0, -20.0) == pytest.approx(180.0)


@pytest.mark.parametrize("centre", CENTRES)
def test_projection_is_that_of_wcslib(centre) -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = centre
    wcs.wcs.set()
    ra, dec = _around(centre, 3.0)

    plane = project(ra, dec, centre)

    assert plane == pytest.approx(wcs.wcs_world2pix(np.stack([ra, dec], 1), 0) + 1.0, abs=1e-10)
    back = unit_vectors(*deproject(plane, centre))
    assert back == pytest.approx(unit_vectors(ra, dec), abs=1e-14)


def test_nothing_is_projected_from_the_other_half_of_the_sky() -> None:
    plane = project([10.0, 120.0, 190.0], [0.0, 0.0, 0.0], (10.0, 0.0))

    assert plane[0] == pytest.approx([0.0, 0.0])
    assert np.isnan(plane[1:]).all()


def test_every_position_may_have_its_own_centre() -> None:
    ra, dec = np.array([10.0, 200.0]), np.array([-80.0, 45.0])

    together = project(ra + 0.1, dec, (ra, dec))

    for k in range(2):
        alone = project(ra[k] + 0.1, dec[k], (ra[k], dec[k]))
        assert np.array_equal(together[k], alone)


def test_axes_are_those_of_small_steps() -> None:
    ra, dec, step = 33.0, -52.0, 1e-4
    east, north = basis(ra, dec)
    there = unit_vectors(ra, dec) + np.radians(step) * east

    assert radec(there)[0] - ra == pytest.approx(step / np.cos(np.radians(dec)), rel=1e-6)
    assert radec(unit_vectors(ra, dec) + np.radians(step) * north)[1] - dec == pytest.approx(
        step, rel=1e-6
    )


def test_pixel_scale_and_derivatives_of_a_turned_image() -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [0.01, 60.0]
    wcs.wcs.crpix = [101.0, 101.0]
    turn = np.radians(30.0)
    wcs.wcs.cd = 1e-4 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.set()

    ra, dec, derivatives = jacobian(wcs, np.array([100.0, 0.0]), np.array([100.0, 0.0]))

    assert pixel_scale(wcs) == pytest.approx(1e-4)
    assert (ra[0], dec[0]) == pytest.approx((0.01, 60.0))
    assert derivatives[0] == pytest.approx(wcs.wcs.cd, abs=1e-11)
    assert np.sqrt(abs(np.linalg.det(derivatives[1]))) == pytest.approx(1e-4, rel=1e-5)
