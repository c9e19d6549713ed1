"""Cosmic rays, defects, bleeds, satellites."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipeline.camera import Camera
from sims.artefacts import (
    ARTEFACTS,
    COSMIC_RAYS_PER_SECOND,
    bit,
    bleed,
    cosmic_rays,
    defects,
)
from sims.geometry import DetectorGeometry
from sims.optics import PsfField
from sims.trails import Trail, paint, trails


def rays(rng: np.random.Generator, shape: tuple[int, int], seconds: float) -> np.ndarray:
    image = np.zeros(shape, np.float32)
    cosmic_rays(rng, image, seconds)
    return image


def test_bleeding_keeps_the_charge() -> None:
    charge = np.full((300, 40), 400.0, np.float32)
    charge[140:160, 18:22] += 4.0e6 / 80
    charge[5, 30] += 3.0e6
    before = charge.sum(dtype=float)
    artefacts = np.zeros(charge.shape, np.uint32)
    wells = np.full(40, 1.0e4, np.float32)
    over = bleed(charge, wells, artefacts, bit("BLEED"), bit("SATURATED"))
    assert charge.max() <= 1.0e4 * (1 + 1e-6)
    assert charge.sum(dtype=float) + over.sum() == pytest.approx(before, rel=1e-5)
    assert over[0, 30] > 1.0e6
    assert over[1].sum() == pytest.approx(0.0, abs=1e-3) or over[1, 30] > 0
    touched = artefacts != 0
    assert set(np.flatnonzero(touched.any(axis=0)).tolist()) == {18, 19, 20, 21, 30}
    column = touched[:, 20]
    assert column[100:200].all()  # 10⁶ electrons fill more than a hundred pixels, both ways
    np.testing.assert_array_equal(charge[~touched], 400.0)


def test_cosmic_rays_come_at_their_rate_with_tracks() -> None:
    rng = np.random.default_rng(1)
    shape, seconds, trials = (1024, 1024), 86.0, 6
    counts, sizes, sharp = 0, [], []
    for _ in range(trials):
        image = rays(rng, shape, seconds)
        labels, n = ndimage.label(image > 0, np.ones((3, 3)))
        counts += n
        sizes += np.bincount(labels.ravel())[1:].tolist()
        sharp.append(image.max())
    expected = COSMIC_RAYS_PER_SECOND * seconds * trials / 8.0
    # A few tracks fall apart or cross.
    assert counts == pytest.approx(expected, rel=0.10, abs=4 * np.sqrt(expected))
    assert np.median(sizes) > 6
    assert np.max(sizes) > 60
    assert np.median(sharp) > 1000.0


def test_charge_diffuses() -> None:
    # Were it not for diffusion, vertical muons would be single pixels.
    image = rays(np.random.default_rng(2), (1024, 1024), 300.0)
    labels, n = ndimage.label(image > 0, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    assert n > 50
    assert (sizes == 1).mean() < 0.02


def test_listed_and_unlisted_defects() -> None:
    detector = Camera.load("testcam").detector(1)
    found = defects(1, detector, unlisted=3)
    listed = np.zeros(detector.shape, bool)
    for box in detector.defects:
        listed[box.y0 : box.y0 + box.height, box.x0 : box.x0 + box.width] = True
    np.testing.assert_array_equal((found.artefacts & bit("DEFECT")) != 0, listed)
    kinds = bit("HOT") | bit("DEAD")
    np.testing.assert_array_equal((found.artefacts & kinds) != 0, listed)
    unlisted = (found.artefacts & bit("UNLISTED")) != 0
    columns = np.flatnonzero(unlisted.any(axis=0))
    assert len(columns) == 3
    assert (unlisted.sum(axis=0)[columns] > 250).all()
    quiet = (found.response == 1.0) & (found.charge == 0.0)
    np.testing.assert_array_equal(quiet, ~(listed | unlisted))


def test_a_satellite_has_the_width_of_a_star_and_its_charge() -> None:
    camera = Camera.load("testcam")
    geometry = DetectorGeometry(camera, camera.detector(1))
    psf = PsfField.draw(1, 1, 1.0, 0.2626, varying=False)
    image = np.zeros((512, 512))
    artefacts = np.zeros((512, 512), np.uint32)
    middle = geometry.to_plane(256.0, 256.0)
    trail = Trail(float(middle[0]), float(middle[1]), 0.0, 500.0, 1e9, 0.0)
    paint(image, artefacts, trail, geometry, psf, sky=400.0)
    np.testing.assert_allclose(image.sum(axis=0), 500.0, rtol=3e-3)
    profile = image[:, 250]
    assert np.argmax(profile) == 256
    width = np.count_nonzero(profile > 0.5 * profile.max())
    assert 3 <= width <= 6
    marked = (artefacts & bit("SATELLITE")) != 0
    np.testing.assert_array_equal(marked, image > 0.3 * 20.0)


def test_trails_cross_in_all_directions() -> None:
    camera = Camera.load("decam")
    found = [t for v in range(100) for t in trails(1, v, camera, 0.8)]
    assert len(found) == pytest.approx(0.8 * 1.15 * 100, rel=0.35)
    assert {t.depth > 1.0 for t in found} == {True, False}
    assert np.ptp([t.angle for t in found]) > 3.0


def test_bits_are_in_the_order_of_the_names() -> None:
    assert [bit(n) for n in ARTEFACTS] == [1 << i for i in range(len(ARTEFACTS))]
