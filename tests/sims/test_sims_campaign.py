"""Whole campaigns: files, determinism, what a frame says about its truth."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import sims
from pipeline.camera import Camera
from pipeline.errors import ConfigError
from pipeline.io import list_raw, read_parquet, read_raw
from pipeline.schema import EXPOSURE, TRUTH_VISIT, to_numpy
from sims import frame as frame_module
from sims.artefacts import ARTEFACTS, bit
from sims.calibration import believed_camera, true_flat
from sims.electronics import linearised
from sims.frame import make_frame
from sims.geometry import DetectorGeometry
from sims.rawfile import pieces
from sims.render import Light, render
from sims.scene import scene_of

VISIT = 411420


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    sims.simulate(root, "tiny", seed=5)
    return root


def contents(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_two_processes_and_one_give_the_same_bytes(campaign: Path, tmp_path: Path) -> None:
    sims.simulate(tmp_path, "tiny", seed=5, jobs=2)
    assert contents(tmp_path) == contents(campaign)


def test_frames_made_one_by_one_are_the_same_bytes(campaign: Path, tmp_path: Path) -> None:
    sims.simulate(tmp_path, "tiny", seed=5, visits=[VISIT], detectors=[2])
    alone = tmp_path / "raw" / f"{VISIT}.fits.fz"
    whole = campaign / "raw" / f"{VISIT}.fits.fz"
    one, both = pieces(alone), pieces(whole)
    assert (list(one), sorted(both)) == ([2], [1, 2])
    assert one[2].read() == both[2].read()
    start = one[2].start
    assert alone.read_bytes()[:start] == whole.read_bytes()[:start]
    sims.simulate(tmp_path, "tiny", seed=5, visits=[VISIT], detectors=[1])
    assert alone.read_bytes() == whole.read_bytes()
    for name in ("truth/visits.parquet", "raw/exposures.parquet"):
        table, everything = read_parquet(tmp_path / name), read_parquet(campaign / name)
        assert table.equals(everything.filter(np.asarray(everything["visit"]) == VISIT))


def test_another_seed_is_another_sky(campaign: Path, tmp_path: Path) -> None:
    sims.simulate(tmp_path, "tiny", seed=6, visits=[VISIT], detectors=[1])
    name = f"raw/{VISIT}.fits.fz"
    assert contents(tmp_path)[name] != contents(campaign)[name]


def test_files_and_tables(campaign: Path) -> None:
    plan = json.loads((campaign / "raw" / "plan.json").read_text())
    assert plan["seed"] == 5
    assert [v["visit"] for v in plan["visits"]] == [
        v.number for v in sims.profiles()["tiny"].visits
    ]
    exposures = read_parquet(campaign / "raw" / "exposures.parquet")
    assert exposures.schema.equals(EXPOSURE.arrow_schema)
    assert exposures["role"].to_pylist().count("template") == 3
    truth = read_parquet(campaign / "truth" / "visits.parquet")
    assert truth.schema.equals(TRUTH_VISIT.arrow_schema)
    camera = believed_camera(campaign / "calib" / "camera", "testcam")
    for row in exposures.to_pylist():
        path = campaign / row["file"]
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert sorted(list_raw(path, camera)) == [1, 2]
        raw = read_raw(path, camera, 1)
        assert raw.data.dtype == np.uint16
        assert raw.info.visit == row["visit"]
        assert abs(raw.info.midpoint_mjd_tai - row["midpointMjdTai"]) * 86400 < 1e-3
        assert raw.info.field == "Blind15A_40"
        assert abs(raw.info.ra - row["ra"]) < 0.01


def test_checksums_hold_and_no_date_is_written(campaign: Path) -> None:
    paths = [*campaign.glob("raw/*.fz"), *campaign.glob("calib/*.fits")]
    paths += sorted(campaign.glob("truth/artefacts/*.fits"))[:2]
    for path in paths:
        with fits.open(path, checksum=True, disable_image_compression=True) as hdus:
            for hdu in hdus:
                assert "CHECKSUM" in hdu.header
                assert "DATE" not in hdu.header
                assert "20" not in hdu.header.comments["CHECKSUM"]


def test_artefact_maps_name_their_bits(campaign: Path) -> None:
    with fits.open(campaign / "truth" / "artefacts" / f"{VISIT}_01.fits") as hdus:
        for i, name in enumerate(ARTEFACTS):
            assert hdus[1].header[f"MP_{name}"] == i
        assert hdus[1].data.shape == (512, 512)
        assert (hdus[1].data.astype(np.uint32) & bit("CR")).any()


def test_calibrations_are_believed_not_true(campaign: Path) -> None:
    told = believed_camera(campaign / "calib" / "camera", "testcam").detector(1)
    true = Camera.load("testcam").detector(1)
    for a, b in zip(told.amplifiers, true.amplifiers, strict=True):
        assert 0 < abs(a.gain / b.gain - 1) < 0.01
        assert 0.98 < a.saturation / b.saturation <= 1
        ratio = a.linearity[b.linearity != 0] / b.linearity[b.linearity != 0]
        assert np.abs(ratio - 1).max() < 0.05
    for a, b in zip(told.crosstalk, true.crosstalk, strict=True):
        assert 0 < abs(a.coefficient - b.coefficient) < 5 * b.coefficient_err
        assert a.onset == b.onset
    assert told.defects == true.defects
    flat = fits.getdata(campaign / "calib" / "flat_g_01.fits")
    assert flat.mean() == pytest.approx(1.0, abs=1e-5)
    # The image in believed electrons over this flat has no step between the channels.
    response = true_flat(5, "g", Camera.load("testcam"), true)
    gains = [told.amplifier(a.name).gain / a.gain for a in true.amplifiers]
    ratio = (flat / response)[true.amplifiers[0].trimmed.slices].mean() / (
        (flat / response)[true.amplifiers[1].trimmed.slices].mean()
    )
    assert ratio == pytest.approx(gains[0] / gains[1], abs=1e-4)


def test_frames_of_another_campaign_are_not_mixed(campaign: Path) -> None:
    before = contents(campaign)
    with pytest.raises(ConfigError, match="another campaign"):
        sims.simulate(campaign, "tiny", seed=6, visits=[VISIT])
    assert contents(campaign) == before


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown profile"):
        sims.simulate(tmp_path, "none")
    with pytest.raises(ConfigError, match="no visit 1"):
        sims.simulate(tmp_path, "tiny", visits=[1])
    assert not any(tmp_path.iterdir())


def quiet_profile() -> sims.Profile:
    profile = sims.profiles()["tiny"]
    sky = replace(profile.sky, star_limits=(16.0, 20.5), galaxies=0.0, supernovae=0.0, flares=0.0)
    sky = replace(sky, variables=0.0, agn=0.0)
    return replace(profile, sky=sky, turbulence=0.0, trails=0.0, known_asteroids=0,
                   unknown_asteroids=1, near_earth=0.0)  # fmt: skip


def test_stars_lie_on_the_header_s_wcs_as_their_noise_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_module.artefact, "_RATE", 0.0)
    profile, seed = quiet_profile(), 3
    camera = Camera.load("testcam")
    shifts, errors = [], []
    for visit in profile.visits:
        conditions = replace(profile.conditions(seed, visit), refraction=0.0)
        monkeypatch.setattr(type(profile), "conditions", lambda *_, c=conditions: c)
        for number in (1, 2):
            found = residuals(profile, seed, visit.number, number, conditions, camera)
            shifts += found[0]
            errors += found[1]
        monkeypatch.undo()
    shift, error = np.array(shifts), np.array(errors)
    assert len(shift) > 150
    pull = shift / error
    mas = 262.6
    standard = 1.25 * mas * np.median(error) / np.sqrt(len(shift))
    assert np.abs(np.median(shift, axis=0) * mas).max() < 2.0 + 3 * standard
    width = 1.4826 * np.median(np.abs(pull - np.median(pull, axis=0)))
    assert width == pytest.approx(1.0, abs=0.12)


def residuals(profile, seed, visit, number, conditions, camera):
    """Offsets of measured positions from the true pointing's WCS, pixels, and their errors."""
    detector = camera.detector(number)
    geometry = DetectorGeometry(camera, detector)
    made = make_frame(profile, seed, visit, number)
    image = electrons(made.raw, detector) / true_flat(seed, "g", camera, detector)
    scene = scene_of(profile, seed, conditions, detector)
    x, y = geometry.to_pixel(conditions.pointing, scene.ra, scene.dec)
    shifts, errors = [], []
    alone = np.hypot(x[:, None] - x, y[:, None] - y) + 1e3 * np.eye(len(x))
    for k in np.flatnonzero(alone.min(axis=1) > 25):
        if not (16 < x[k] < 495 and 16 < y[k] < 495) or scene.light.radius[k] > 0:
            continue
        box = slice(round(y[k]) - 10, round(y[k]) + 11), slice(round(x[k]) - 10, round(x[k]) + 11)
        if made.artefacts[box].any() or scene.light.trail_x[k] != 0:
            continue
        fitted = fit(image[box], conditions, geometry, x[k], y[k], scene.light.flux[k])
        shifts.append(fitted[0])
        errors.append(fitted[1])
    return shifts, errors


def electrons(raw, detector):
    """Trimmed image in electrons, with true gains and linearity."""
    out = np.empty(detector.shape)
    for amp in detector.amplifiers:
        rows = slice(amp.data.y0, amp.data.y1)
        level = np.median(raw[rows, amp.overscan.x0 : amp.overscan.x1], axis=1)[:, None]
        out[amp.trimmed.slices] = amp.gain * linearised(amp, raw[amp.data.slices] - level)
    return out


def fit(stamp, conditions, geometry, x, y, flux):
    """Linear fit of flux, two shifts and a constant to a star."""
    middle = np.array([round(x), round(y)])
    plane = tuple(np.atleast_1d(v) for v in geometry.to_plane(x, y))

    def model(dx, dy):
        place = 10.0 + np.array([x, y]) - middle + (dx, dy)
        return render(Light.points(*place, flux), conditions.psf, plane, stamp.shape)

    step = 0.02
    columns = [model(0, 0), (model(step, 0) - model(-step, 0)) / (2 * step),
               (model(0, step) - model(0, -step)) / (2 * step), np.ones(stamp.shape)]  # fmt: skip
    design = np.stack([c.ravel() for c in columns], axis=1)
    weight = 1.0 / (columns[0].ravel() + conditions.sky + 36.0)
    normal = design.T @ (weight[:, None] * design)
    solution = np.linalg.solve(normal, design.T @ (weight * stamp.ravel()))
    covariance = np.linalg.inv(normal)
    return solution[1:3], np.sqrt(np.diag(covariance)[1:3])


def test_the_header_s_wcs_is_off_by_the_pointing_error(campaign: Path) -> None:
    camera = Camera.load("testcam")
    profile = sims.profiles()["tiny"]
    truth = read_parquet(campaign / "truth" / "visits.parquet")
    for visit in profile.visits[:3]:
        raw = read_raw(campaign / "raw" / f"{visit.number}.fits.fz", camera, 1)
        header = fits.Header(
            {
                k: v
                for k, v in raw.header.items()
                if len(k) <= 8 and isinstance(v, str | float | int)
            }
        )
        wcs = WCS(header)
        rows = (to_numpy(truth, "visit") == visit.number) & (to_numpy(truth, "detector") == 1)
        x, y, ra, dec = (to_numpy(truth, c)[rows] for c in ("x", "y", "ra", "dec"))
        px, py = wcs.all_world2pix(ra, dec, 0)
        offset = np.array([px - header["LTV1"] - x, py - header["LTV2"] - y]) * 0.2626
        conditions = profile.conditions(5, visit)
        error = np.array(
            [
                (conditions.believed.ra - conditions.pointing.ra)
                * np.cos(np.radians(visit.dec)) * 3600,
                (conditions.believed.dec - conditions.pointing.dec) * 3600,
            ]
        )  # fmt: skip
        assert 0.1 < np.hypot(*error) < 12.0
        assert np.hypot(*np.median(offset, axis=1)) == pytest.approx(np.hypot(*error), abs=0.15)
