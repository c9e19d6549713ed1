"""What air, clouds, optics and flats do to the light before it becomes charge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sims
from pipeline.camera import Camera
from pipeline.schema import to_numpy
from sims import calibration
from sims.frame import make_frame
from sims.geometry import DetectorGeometry
from sims.minorplanets import FIRST_ID, bodies
from sims.scene import Scene, scene_of

MINI = sims.profiles()["mini"]
CAMERA = Camera.load("decam")
SEED = 5


def seen(profile: sims.Profile, visit: int, number: int = 10) -> tuple[Scene, np.ndarray]:
    """Scene of a detector, and by how much its stars are displaced, pixels."""
    conditions = profile.conditions(SEED, profile.visit(visit))
    detector = CAMERA.detector(number)
    scene = scene_of(profile, SEED, conditions, detector)
    geometry = DetectorGeometry(CAMERA, detector)
    x, y = geometry.to_pixel(conditions.pointing, scene.ra, scene.dec)
    still = (scene.light.trail_x == 0) & (scene.sources["truthId"] < FIRST_ID)
    return scene, np.array([scene.light.x - x, scene.light.y - y]).T[still]


def test_turbulence_is_eight_milliarcseconds_per_axis() -> None:
    ideal = replace(MINI, ideal=True)
    _, shift = seen(ideal, 411420)
    mas = 1000 * CAMERA.pixel_scale * shift
    n = len(mas)
    assert mas.std(axis=0) == pytest.approx(8.0, rel=4 / np.sqrt(2 * n))
    assert np.abs(mas.mean(axis=0)).max() < 4 * 8.0 / np.sqrt(n)
    _, none = seen(replace(ideal, turbulence=0.0), 411420)
    assert np.abs(none).max() < 1e-9


def test_blue_light_is_lifted_towards_the_zenith() -> None:
    quiet = replace(MINI, turbulence=0.0)
    visit = 411069  # airmass 1.68
    scene, shift = seen(quiet, visit)
    conditions = quiet.conditions(SEED, quiet.visit(visit))
    fixed = scene.sources[scene.sources["truthId"] < FIRST_ID]
    colour = -2.5 * np.log10(fixed["flux"][:, 1] / fixed["flux"][:, 3])
    geometry = DetectorGeometry(CAMERA, CAMERA.detector(10))
    # The same displacement from positions on the sky: a small step towards the zenith.
    k = int(np.argmin(np.abs(fixed["ra"] - np.median(fixed["ra"]))))
    step = 1e-4
    angle = np.radians(conditions.zenith_angle)
    ra, dec = fixed["ra"][k], fixed["dec"][k]
    there = geometry.to_pixel(
        conditions.pointing,
        [ra, ra + step * np.sin(angle) / np.cos(np.radians(dec))],
        [dec, dec + step * np.cos(angle)],
    )
    up = np.array([there[0][1] - there[0][0], there[1][1] - there[1][0]])
    up /= np.hypot(*up)
    along = shift @ up
    across = shift @ np.array([-up[1], up[0]])
    slope = np.polyfit(colour, along, 1)[0] * CAMERA.pixel_scale
    assert slope == pytest.approx(-conditions.refraction, rel=1e-3)
    assert np.abs(across).max() < 0.02 * np.abs(along).max()


def test_clouds_dim_and_patch_the_sky() -> None:
    dim = {}
    for number in (10, 56):
        clear, _ = seen(replace(MINI, cloud=0.0), 411420, number)
        cloudy, _ = seen(replace(MINI, cloud=1.0), 411420, number)
        ratio = cloudy.light.flux / clear.light.flux
        conditions = replace(MINI, cloud=1.0).conditions(SEED, MINI.visit(411420))
        mean = 10 ** (-0.4 * conditions.cloud)
        assert np.median(ratio) == pytest.approx(mean, rel=0.25 * conditions.cloud)
        dim[number] = np.median(ratio) / mean
    assert abs(dim[10] - dim[56]) > 1e-4  # not the same over the focal plane


def test_flats_do_not_know_the_illumination_of_stars() -> None:
    scene, _ = seen(replace(MINI, cloud=0.0), 411420)
    later, _ = seen(replace(MINI, cloud=0.0), 412568)
    error = {}
    for name, s, visit in (("first", scene, 411420), ("later", later, 412568)):
        conditions = replace(MINI, cloud=0.0).conditions(SEED, MINI.visit(visit))
        ratio = s.light.flux / (s.flux * conditions.electrons_per_njy)
        error[name] = dict(zip(s.sources["truthId"].tolist(), ratio.tolist(), strict=True))
    both = sorted(error["first"].keys() & error["later"].keys())
    first, second = (np.array([error[n][k] for k in both]) for n in ("first", "later"))
    # The same in every visit up to the dither, up to a percent, smooth.
    np.testing.assert_allclose(first, second, atol=3e-4)
    assert 5e-4 < np.abs(first - 1).max() < 0.02


def test_the_sky_is_a_plane_across_the_focal_plane() -> None:
    conditions = MINI.conditions(SEED, MINI.visits[0])
    levels = {}
    for number in (1, 35, 62):
        geometry = DetectorGeometry(CAMERA, CAMERA.detector(number))
        level, along_x, along_y = conditions.sky_at(geometry)
        x_mm, y_mm = geometry.to_plane(2047.0, 4095.0)
        far = conditions.sky * (1 + conditions.gradient[0] * x_mm + conditions.gradient[1] * y_mm)
        assert level + 2047 * along_x + 4095 * along_y == pytest.approx(far, rel=1e-9)
        levels[number] = level
    assert len(set(levels.values())) == 3


def test_flats_have_vignetting_pixels_and_dust() -> None:
    inner, outer = (calibration.true_flat(SEED, "g", CAMERA, CAMERA.detector(n)) for n in (35, 62))
    for flat in (inner, outer):
        assert flat.mean(dtype=float) == pytest.approx(1.0, abs=1e-5)
        pixel = (flat[:, 1:] - flat[:, :-1]).std() / np.sqrt(2)
        assert pixel == pytest.approx(0.005, rel=0.03)
    coarse = [f.reshape(64, 64, 32, 64).mean(axis=(1, 3)) for f in (inner, outer)]
    assert np.ptp(coarse[1]) > 3 * np.ptp(coarse[0])  # light falls off towards the edge
    other = calibration.true_flat(SEED, "r", CAMERA, CAMERA.detector(35))
    assert np.corrcoef(inner.ravel()[::97], other.ravel()[::97])[0, 1] < 0.5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_science_visit_of_mini_shows_three_known_asteroids(seed: int) -> None:
    orbits = bodies(MINI, seed)
    known = orbits.ids[orbits.known]
    for visit in (v for v in MINI.visits if v.role == "science"):
        conditions = MINI.conditions(seed, visit)
        # Pixels over which the noise of a point source counts, 4 π σ², and a trail's.
        sigma = conditions.psf.fwhm / 2.355
        bright = 0
        for number in MINI.detectors:
            scene = scene_of(MINI, seed, conditions, CAMERA.detector(number))
            light = scene.light
            ny, nx = CAMERA.detector(number).shape
            on = (light.x > 20) & (light.x < nx - 20) & (light.y > 20) & (light.y < ny - 20)
            length = np.hypot(light.trail_x, light.trail_y)
            area = 4 * np.pi * sigma**2 + 2 * np.sqrt(np.pi) * sigma * length
            snr = light.flux / np.sqrt(light.flux + area * (conditions.sky + 36.0))
            mine = np.isin(scene.sources["truthId"], known)
            bright += int((on & mine & (snr > 10)).sum())
        assert bright >= 3


def test_the_truth_of_a_frame_is_in_its_pixels() -> None:
    profile = sims.profiles()["tiny"]
    frame = make_frame(profile, SEED, 411420, 1)
    flux, x, y = (to_numpy(frame.truth, c) for c in ("fluxElectrons", "x", "y"))
    detector = Camera.load("testcam").detector(1)
    bright = np.flatnonzero((flux > 5e4) & (x > 20) & (x < 490) & (y > 20) & (y < 490))
    assert len(bright) > 3
    image = np.empty(detector.shape)
    for amp in detector.amplifiers:
        image[amp.trimmed.slices] = frame.raw[amp.data.slices] - np.median(
            frame.raw[amp.data.slices]
        )
    for k in bright:
        box = image[round(y[k]) - 3 : round(y[k]) + 4, round(x[k]) - 3 : round(x[k]) + 4]
        assert box.mean() > 100.0
