"""Noise-free images against galsim.drawImage, per source class and stamp size."""

from __future__ import annotations

import galsim
import numpy as np
import pytest

from sims import galaxies
from sims.optics import PsfField
from sims.render import EDGE_BRIGHTNESS, Light, render, stamp_sides
from sims.statistics.oracle import CLASSES, drawn_by_galsim, rendering

SIDE = 200
SKY, READ_NOISE = 360.0, 6.0
SCALE = 0.2626
X, Y = 100.3, 99.8
PLANE = np.array([10.0]), np.array([-50.0])
COLUMN, ROW = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
APERTURE = np.hypot(COLUMN - X, ROW - Y) < 16.0


def light(flux: float, radius: float = 0.0, index: int = 0, g: float = 0.0, trail=(0.0, 0.0)):
    one = np.ones(1)
    return Light(
        X * one,
        Y * one,
        flux * one,
        radius * one,
        np.array([index]),
        g * one,
        0.3 * g * one,
        trail[0] * one,
        trail[1] * one,
    )


def oracle(psf: PsfField, source: Light) -> np.ndarray:
    return drawn_by_galsim(source, psf, PLANE, SIDE)


CASES = {
    "star, 64 px": (light(2e4), 64),
    "bright star, 96 px": (light(1e6), 96),
    "saturated star, 256 px": (light(3e7), 256),
    "disk, 48 px": (light(1e4, 2.0, 0, 0.3), 48),
    "small disk, 48 px": (light(1e3, 1.0, 0, -0.2), 48),
    "n = 2, 192 px": (light(1e5, 8.0, 1, 0.4), 192),
    "de Vaucouleurs, 48 px": (light(3e4, 3.0, 2, -0.2), 48),
    "trail, 96 px": (light(3e4, trail=(15.0, -7.0)), 96),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fwhm", [0.8])
def test_pixels_fluxes_and_centroids_follow_galsim(name: str, fwhm: float) -> None:
    source, side = CASES[name]
    psf = PsfField.draw(1, 1, fwhm, SCALE)
    assert stamp_sides(source, psf, EDGE_BRIGHTNESS) == [side]
    ours, theirs = render(source, psf, PLANE, (SIDE, SIDE)), oracle(psf, source)
    noise = np.sqrt(theirs + SKY + READ_NOISE**2)
    assert np.abs((ours - theirs) / noise).max() < 0.02
    assert ours[APERTURE].sum() == pytest.approx(theirs[APERTURE].sum(), rel=1e-3)
    assert np.abs(centroid(ours) - centroid(theirs)).max() * SCALE < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("fwhm", [0.8, 1.3])
def test_every_class_at_every_stamp_size_follows_galsim(fwhm: float) -> None:
    found = rendering(PsfField.draw(2, 2, fwhm, SCALE))
    subjects = {row.subject for row in found.rows}
    assert {s.split(",")[0] for s in subjects} == set(CLASSES)
    assert len(subjects) >= 20
    assert [row for row in found.rows if not row.holds] == []


@pytest.mark.parametrize("name", ["star, 64 px", "small disk, 48 px"])
def test_poor_seeing_keeps_the_flux(name: str) -> None:
    source, _ = CASES[name]
    psf = PsfField.draw(1, 1, 1.3, SCALE)
    ours, theirs = render(source, psf, PLANE, (SIDE, SIDE)), oracle(psf, source)
    assert ours[APERTURE].sum() == pytest.approx(theirs[APERTURE].sum(), rel=1e-3)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image * APERTURE
    return np.array([(weight * COLUMN).sum(), (weight * ROW).sum()]) / weight.sum()


def test_drawing_is_linear_and_signed() -> None:
    psf = PsfField.draw(1, 1, 1.0, SCALE)
    two = Light.points([60.0, 120.0], [80.0, 90.0], [1e4, -2e4])
    plane = np.zeros(2), np.zeros(2)
    both = render(two, psf, plane, (SIDE, SIDE))
    apart = sum(
        render(two.take(np.array([k])), psf, (np.zeros(1), np.zeros(1)), (SIDE, SIDE))
        for k in (0, 1)
    )
    np.testing.assert_allclose(both, apart, atol=1e-9)
    assert both.sum() == pytest.approx(-1e4, rel=1e-6)


def test_a_source_outside_still_shines_in() -> None:
    psf = PsfField.draw(1, 1, 1.0, SCALE)
    image = render(Light.points(-3.0, 50.0, 1e5), psf, (np.zeros(1), np.zeros(1)), (100, 100))
    assert 0.03e5 < image.sum() < 0.4e5
    assert image[50, 0] == image.max()


def test_the_stored_transforms_are_those_of_the_profiles() -> None:
    q = np.arange(galaxies.transforms().shape[1]) * galaxies.STEP
    disk = galsim.Sersic(1.0, half_light_radius=1.0, trunc=galaxies.TRUNCATION)
    for k in (0.3, 1.0, 4.0):
        ours = np.interp(k, q, galaxies.transforms()[0])
        assert ours == pytest.approx(disk.kValue(k, 0).real, abs=2e-6)


def test_seeing_is_the_width_of_a_star() -> None:
    psf = PsfField.draw(1, 1, 1.0, SCALE, varying=False)
    zero = np.zeros(1)
    fine = 1.0 / 5.0  # magnify five times: the pixel's own response becomes negligible
    large = PsfField(psf.fwhm / fine, SCALE * fine, psf.size, psf.g1, psf.g2)
    image = render(Light.points(150.0, 150.0, 1e6), large, (zero, zero), (301, 301))
    profile = image[150, 150:]
    half = np.interp(-0.5 * profile[0], -profile, np.arange(len(profile)))
    assert 2 * half * SCALE * fine == pytest.approx(1.0, rel=0.03)
