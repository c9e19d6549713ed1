"""The mapping between pixels and sky, the TPV header, the schedule, the air mass."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.camera import Camera
from sims.conditions import Conditions, airmass_of
from sims.geometry import DetectorGeometry, Pointing, tpv_cards
from sims.schedule import LATITUDE, Visit, hits2015, horizon, season2014

POINTING = Pointing(155.12, -6.52, 0.01)


def geometry(camera: str, number: int) -> DetectorGeometry:
    loaded = Camera.load(camera)
    return DetectorGeometry(loaded, loaded.detector(number))


@pytest.mark.parametrize(("camera", "number"), [("decam", 10), ("decam", 62), ("lsstlike", 1)])
def test_pixels_and_sky_are_inverse(camera: str, number: int) -> None:
    g = geometry(camera, number)
    rng = np.random.default_rng(1)
    ny, nx = g.detector.shape
    x, y = rng.uniform(0, nx, 50), rng.uniform(0, ny, 50)
    back = g.to_pixel(POINTING, *g.to_sky(POINTING, x, y))
    np.testing.assert_allclose(back, [x, y], atol=1e-7)


@pytest.mark.parametrize("camera", ["decam", "lsstlike", "testcam"])
def test_what_is_far_away_is_on_no_detector(camera: str) -> None:
    """An asteroid 126 degrees away was drawn on one, at another root of the distortion."""
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 400_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 400_000)))
    far = POINTING.from_sky(ra, dec)[0] > np.radians(3.0)
    for number in list(Camera.load(camera).detectors)[::9]:
        g = geometry(camera, number)
        x, y = g.to_pixel(POINTING, ra[far], dec[far])
        ny, nx = g.detector.shape
        assert not np.any((np.abs(x - 0.5 * nx) < nx) & (np.abs(y - 0.5 * ny) < ny))


@pytest.mark.parametrize(("camera", "number"), [("decam", 25), ("decam", 56), ("testcam", 2)])
def test_the_header_follows_the_optics(camera: str, number: int) -> None:
    g = geometry(camera, number)
    header = fits.Header(
        {"NAXIS": 2, "RADESYS": "ICRS", **tpv_cards(g, POINTING)},
    )
    wcs = WCS(header)
    ny, nx = g.detector.shape
    x, y = np.random.default_rng(2).uniform(0, 1, (2, 60)) * [[nx], [ny]]
    amp = g.detector.amplifiers[0]
    raw = x + amp.data.x0 - amp.trimmed.x0, y + amp.data.y0 - amp.trimmed.y0
    ra, dec = wcs.all_pix2world(*raw, 0)
    true_ra, true_dec = g.to_sky(POINTING, x, y)
    assert np.abs((ra - true_ra) * np.cos(np.radians(dec))).max() * 3.6e6 < 0.3  # mas
    assert np.abs(dec - true_dec).max() * 3.6e6 < 0.3


def test_the_first_order_term_is_not_one() -> None:
    # As in real headers: who leaves PV out is wrong by arcseconds.
    cards = tpv_cards(geometry("decam", 60), Pointing(155.0, -6.0))
    assert abs(float(cards["PV1_1"]) - 1.0) > 1e-3


def test_decam_looks_at_the_sky_turned_and_mirrored() -> None:
    g = geometry("decam", 35)
    ra, dec = g.to_sky(Pointing(100.0, 0.0), [1000.0, 1100.0, 1000.0], [2000.0, 2000.0, 2100.0])
    assert dec[1] - dec[0] == pytest.approx(-100 * 0.2636 / 3600, rel=0.01)
    assert ra[2] - ra[0] == pytest.approx(100 * 0.2636 / 3600, rel=0.01)
    angle = g.pixel_angle(np.array([0.0, 90.0]))
    assert np.cos(angle[0]) == pytest.approx(-1.0, abs=1e-3)
    assert np.sin(angle[1]) == pytest.approx(1.0, abs=1e-3)


def test_real_airmasses_come_back() -> None:
    # Header of exposure 412037, field Blind15A_03.
    (visit,) = hits2015("Blind15A_03", "g", numbers=(412037,))
    assert airmass_of(horizon(visit)[0]) == pytest.approx(1.67, abs=0.02)


def test_midpoints_are_tai_to_a_millisecond() -> None:
    # 411420 began at 07:03:55.532 UTC on MJD 57071 and lasted 86 s; TAI was 35 s ahead.
    (visit,) = hits2015("Blind15A_40", "g", numbers=(411420,))
    seconds = 7 * 3600 + 3 * 60 + 55.532 + 43.0 + 35.0
    assert (visit.midpoint - 57071) * 86400 == pytest.approx(seconds, abs=1e-3)


def test_the_zenith_is_where_it_should_be() -> None:
    def at(hours: int) -> tuple[float, float, float]:
        start = f"2015-02-18T{hours:02d}:00:00"
        return horizon(Visit(1, "f", "g", 86.0, start, 155.0, -6.5))

    altitude, angle, hour = at(2)
    assert hour < 0  # east of the meridian: the zenith lies west of south
    assert -180.0 < angle < -90.0
    altitude_later, angle_later, hour_later = at(8)
    assert hour_later > 0
    assert 90.0 < angle_later < 180.0
    top = max(at(h)[0] for h in range(10))
    assert top == pytest.approx(90.0 + LATITUDE + 6.5, abs=1.0)
    assert altitude < top > altitude_later


def test_refraction_lifts_blue_light() -> None:
    (visit,) = hits2015("Blind15A_40", "g", numbers=(411069,))
    conditions = Conditions.draw(1, visit, (1.0, 1.0), 0.2626)
    assert conditions.airmass == pytest.approx(1.68, abs=0.02)
    assert conditions.refraction == pytest.approx(0.040 * np.sqrt(1.68**2 - 1), rel=0.02)


def test_schedule_counts() -> None:
    assert len(hits2015("Blind15A_40", "g")) == 28
    assert {v.exptime for v in hits2015("Blind15A_40", "g")} == {86.0, 102.0}
    with pytest.raises(ValueError, match="no visits"):
        hits2015("Blind15A_40", "g", numbers=(1,))
    before = season2014("Blind15A_40", "g", 3)
    assert all(v.role == "template" and v.start < "2014-04" for v in before)
    assert {(v.ra, v.dec) for v in before} == {
        (v.ra, v.dec) for v in hits2015("Blind15A_40", "g")[:3]
    }
    numbers = [v.number for f in (26, 40, 42) for v in season2014(f"Blind15A_{f}", "g", 5)]
    assert len(set(numbers)) == 15
