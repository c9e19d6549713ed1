"""World coordinates against the text of the TPV convention, and corrections of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calibrate.tpv import Coordinates

Array = npt.NDArray[np.float64]
CD = np.array([[-1.2e-6, 7.3e-5], [-7.2e-5, -0.9e-6]])
CRPIX = np.array([-3000.0, 4200.0])
# Constant, x, y, x², xy, y², x³, x²y, xy², y³; at 0.4 deg each is up to about ten pixels.
TERMS = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
SIZE = np.array([1e-3, 2e-3, 2e-3, 5e-3, 5e-3, 5e-3, 1e-2, 1e-2, 1e-2, 1e-2])
GRID = [a.ravel().astype(float) for a in np.meshgrid([0, 700, 2047], [0, 1900, 4095])]

coefficients = st.lists(st.floats(-1.0, 1.0), min_size=20, max_size=20)


def make(values: list[float] | None, crval: tuple[float, float] = (150.3, -3.2)) -> Coordinates:
    """TPV with a distortion of up to a few pixels; TAN without values."""
    pv = None
    if values is not None:
        pv = np.zeros((2, 40))
        pv[:, TERMS] = SIZE * np.reshape(values, (2, 10))
        pv[:, 1] += 1.0
    return Coordinates(np.array(crval), CRPIX, CD, pv, None)


def by_hand(at: Coordinates, x: Array, y: Array) -> SkyCoord:
    """TPV written out, and astropy's frame about the point of tangency."""
    xi, eta = at.cd @ (np.stack([x, y]) + 1.0 - at.crpix[:, None])

    def axis(k: Array, a: Array, b: Array) -> Array:
        powers = [1, a, b, a * a, a * b, b * b, a**3, a * a * b, a * b * b, b**3]
        return np.asarray(sum(c * p for c, p in zip(k[TERMS], powers, strict=True)))

    assert at.pv is not None
    east, north = axis(at.pv[0], xi, eta), axis(at.pv[1], eta, xi)
    # Gnomonic: a point of the plane lies along (1, east, north) seen from the centre.
    lon = np.arctan(np.radians(east))
    lat = np.arctan(np.radians(north) * np.cos(lon))
    centre = SkyCoord(*at.crval, unit="deg")
    return SkyCoord(lon, lat, unit="rad", frame=centre.skyoffset_frame()).icrs


def apart(a: SkyCoord, b: SkyCoord) -> float:
    return float(a.separation(b).to_value(u.mas).max())


def sky(at: Coordinates | WCS, x: Array = GRID[0], y: Array = GRID[1]) -> SkyCoord:
    wcs = at.wcs if isinstance(at, Coordinates) else at
    return SkyCoord(*wcs.all_pix2world(x, y, 0), unit="deg")


@settings(max_examples=25)
@given(coefficients, st.floats(0.0, 359.9), st.floats(-85.0, 85.0))
def test_sky_is_that_of_the_convention(values: list[float], ra: float, dec: float) -> None:
    at = make(values, (ra, dec))

    assert apart(sky(at), by_hand(at, *GRID)) < 0.001


@settings(max_examples=25)
@given(coefficients, st.floats(0.0, 359.9), st.floats(-85.0, 85.0))
def test_header_and_pixels_go_round(values: list[float], ra: float, dec: float) -> None:
    at = make(values, (ra, dec))
    read = at.canonical()
    again = Coordinates.of(read)

    back = np.array(at.wcs.all_world2pix(*at.sky(*GRID), 0))

    assert apart(sky(at), sky(read)) < 0.001
    assert again.pv is not None
    assert again.pv == pytest.approx(at.pv, abs=1e-13)
    assert back == pytest.approx(np.array(GRID), abs=1e-5)


@settings(max_examples=25)
@given(
    st.none() | coefficients,
    st.floats(-80.0, 80.0),
    st.floats(-0.02, 0.02),
    st.floats(-0.02, 0.02),
    st.floats(-0.01, 0.01),
)
def test_a_turned_sky_is_rigid_and_its_middle_goes_where_it_should(
    values: list[float] | None, dec: float, east: float, north: float, angle: float
) -> None:
    at = make(values, (20.0, dec))
    x, y = np.array([1023.5, *GRID[0]]), np.array([2047.5, *GRID[1]])
    before = sky(at, x, y)
    middle = float(before[0].ra.deg), float(before[0].dec.deg)

    after = sky(at.turned(middle, np.array([east, north]), angle), x, y)

    moved = before[0].spherical_offsets_to(after[0])
    assert [o.to_value(u.deg) for o in moved] == pytest.approx([east, north], abs=2e-6)
    lengths = [s[0].separation(s[1:]).to_value(u.mas) for s in (before, after)]
    assert lengths[1] == pytest.approx(lengths[0], abs=0.01)
    bearings = [s[0].position_angle(s[1:]).to_value(u.rad) for s in (before, after)]
    turn = (bearings[1] - bearings[0] + np.pi) % (2 * np.pi) - np.pi
    # East is left of north: what turns from east to north lowers the position angle.
    assert turn == pytest.approx(np.full(len(turn), -angle), abs=1e-6)


@settings(max_examples=25)
@given(
    st.none() | coefficients,
    st.lists(st.floats(-2e-4, 2e-4), min_size=20, max_size=20),
    st.floats(-0.4, 0.4),
    st.floats(0.05, 0.5),
    st.sampled_from([2, 3]),
)
def test_bending_adds_the_polynomial(
    values: list[float] | None, terms: list[float], middle: float, half: float, order: int
) -> None:
    at = make(values)
    added = np.reshape(terms, (10, 2))[: {2: 6, 3: 10}[order]]
    origin = np.array([middle, -0.3])
    a, b = ((at.undistorted(*GRID) - origin) / half).T
    powers = [a**0, a, b, a * a, a * b, b * b, a**3, a * a * b, a * b * b, b**3]
    expected = np.stack(powers[: len(added)], axis=1) @ added

    bent = at.bent(added, origin, half, order)

    assert bent.plane(*GRID) - at.plane(*GRID) == pytest.approx(expected, abs=1e-9)
