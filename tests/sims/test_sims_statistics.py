"""Statistics of the simulator: measured in frames, beside what was put in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import sims
from pipeline.camera import Camera
from pipeline.io import read_parquet, write_parquet
from sims import calibration, electronics
from sims.artefacts import bit
from sims.optics import PsfField
from sims.statistics import Row, Statistics, astrometry, campaign, laboratory, page
from sims.statistics.stars import electrons, undisturbed, width_of

SEED = 4


def failing(found: Statistics) -> set[str]:
    return {row.name for row in found.rows if not row.holds}


def test_a_row_knows_whether_it_holds() -> None:
    row = Row("gain", "A", 4.03, 4.0, 0.01, "", 1, relative=True)
    assert row.error == pytest.approx(0.0075)
    assert row.holds
    assert not replace(row, measured=4.05).holds
    assert not replace(row, relative=False).holds
    assert not replace(row, measured=np.nan).holds
    both = Statistics((row, replace(row, measured=4.039, subject="B")))
    assert [r.subject for r in both.worst()] == ["B"]


@pytest.mark.parametrize("number", [1, 2])
def test_the_laboratory_finds_the_camera_as_it_is(number: int) -> None:
    found = laboratory(Camera.load("testcam"), number, seed=SEED)
    names = {row.name for row in found.rows}
    assert names == {"gain", "read noise", "linearity", "crosstalk"}
    assert failing(found) == set()
    for curve in found.curves:
        assert len(curve.x) == len(curve.measured) == len(curve.expected)


@pytest.mark.slow
def test_the_laboratory_finds_sixteen_channels() -> None:
    found = laboratory(Camera.load("lsstlike"), 1, seed=SEED)
    assert sum(row.name == "gain" for row in found.rows) == 16
    assert failing(found) == set()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"gain": 1.02}, "gain"),
        ({"read_noise": 1.02}, "read noise"),
        ({"linearity": 1.01}, "linearity"),
    ],
)
def test_the_laboratory_finds_a_wrong_channel(
    change: dict[str, float], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The frames come from another channel than the one they are compared with.
    camera = Camera.load("testcam")
    key, factor = next(iter(change.items()))
    detector = camera.detector(1)
    amps = tuple(replace(a, **{key: getattr(a, key) * factor}) for a in detector.amplifiers)
    other = detector.replace(amplifiers=amps)
    real = electronics.read_out, electronics.to_counts

    def read_out(rng, _detector, *arguments):
        return real[0](rng, other, *arguments)

    monkeypatch.setattr("sims.statistics.channels.read_out", read_out)
    monkeypatch.setattr(electronics, "to_counts", lambda _detector, charge: real[1](other, charge))
    assert name in failing(laboratory(camera, 1, seed=SEED))


def test_the_laboratory_finds_crosstalk_that_is_six_percent_off() -> None:
    camera = Camera.load("testcam")
    detector = camera.detector(1)
    right = [r for r in laboratory(camera, 1, seed=SEED).rows if r.name == "crosstalk"]
    assert right
    for row in right:
        assert not replace(row, expected=row.expected * 1.06).holds
    assert len(right) == sum(abs(c.coefficient) > 1e-4 for c in detector.crosstalk)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("statistics")
    sims.simulate(root, "tiny", seed=SEED)
    return root


def test_a_campaign_shows_what_was_put_in(tiny: Path) -> None:
    found = campaign(tiny)
    assert failing(found) == set()
    names = {row.name for row in found.rows}
    assert {
        "counts of stars",
        "counts of galaxies",
        "seeing",
        "distribution of the seeing",
        "rate of cosmic rays",
        "centroid on the truth",
        "midpoint in truth",
        "midpoint in exposures",
    } <= names
    assert sum(row.name == "midpoint in truth" for row in found.rows) == 7
    assert {curve.name for curve in found.curves} >= {"counts of stars", "seeing"}


def test_a_campaign_that_went_wrong_is_found_out(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("raw", "truth"):
        (tmp_path / name).symlink_to(tiny / name)
    (tmp_path / "truth").unlink()
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "artefacts").symlink_to(tiny / "truth" / "artefacts")
    objects = read_parquet(tiny / "truth" / "objects.parquet")
    write_parquet(tmp_path / "truth" / "objects.parquet", objects)
    visits = read_parquet(tiny / "truth" / "visits.parquet")
    wrong = {
        "x": np.asarray(visits["x"]) + 0.05,
        "midpointMjdTai": np.asarray(visits["midpointMjdTai"]) + 0.0015 / 86400,
    }
    for column, values in wrong.items():
        index = visits.schema.get_field_index(column)
        visits = visits.set_column(index, visits.schema.field(index), [values])
    write_parquet(tmp_path / "truth" / "visits.parquet", visits)
    monkeypatch.setattr("sims.statistics.workspace.COSMIC_RAYS_PER_SECOND", 5.0)
    drawn = PsfField.draw

    def wider(seed: int, visit: int, fwhm: float, scale: float, **more: bool) -> PsfField:
        return drawn(seed, visit, 1.05 * fwhm, scale, **more)

    monkeypatch.setattr(PsfField, "draw", wider)
    profile = sims.profiles()["tiny"]
    denser = replace(profile, sky=replace(profile.sky, stars=2 * profile.sky.stars))
    monkeypatch.setattr("sims.statistics.workspace.profiles", lambda: {"tiny": denser})
    assert failing(campaign(tmp_path)) >= {
        "counts of stars",
        "seeing",
        "rate of cosmic rays",
        "centroid on the truth",
        "midpoint in truth",
    }


def test_stars_lie_on_the_header_s_wcs_as_their_noise_allows() -> None:
    profile = sims.profiles()["tiny"]
    units = [(v.number, d) for v in profile.visits for d in (1, 2)]
    found = astrometry(profile, SEED, units)
    assert failing(found) == set()
    assert all(row.population > 150 for row in found.rows)


def test_quiet_frames_have_no_other_sources() -> None:
    ideal = undisturbed(sims.profiles()["tiny"])
    conditions = ideal.conditions(SEED, ideal.visits[0])
    assert conditions.pointing == conditions.nominal
    assert conditions.refraction == 0.0


def test_electrons_are_the_charge_that_was_collected(tiny: Path) -> None:
    from pipeline.io import read_raw

    camera = Camera.load("testcam")
    detector = camera.detector(2)
    raw = read_raw(tiny / "raw" / "411420.fits.fz", camera, 2)
    flat = calibration.true_flat(SEED, "g", camera, detector)
    image = electrons(raw.data, detector) / flat
    artefacts = fits.getdata(tiny / "truth" / "artefacts" / "411420_02.fits")
    clean = (artefacts & (bit("CR") | bit("DEFECT") | bit("UNLISTED"))) == 0
    sky = sims.profiles()["tiny"]
    expected = sky.conditions(SEED, sky.visit(411420)).sky
    # The bias structure, a few ADU near the edges, is still there, and so are faint sources.
    assert np.median(image[clean]) == pytest.approx(expected, rel=0.05)


def test_width_is_weighted_by_its_errors() -> None:
    from sims.statistics.stars import Measured

    psf = PsfField.draw(1, 1, 1.0, 0.2626)
    stars = Measured(
        np.zeros((2, 2)), np.ones((2, 2)), np.array([0.1, 0.0]), np.array([0.01, 0.03])
    )
    width, error = width_of(stars, psf)
    assert width == pytest.approx(1.09)
    assert error == pytest.approx(1 / np.sqrt(1e4 + 1 / 0.03**2))


@pytest.mark.slow
def test_the_page_holds_every_statistic_and_json_can_hold_the_page(tiny: Path) -> None:
    found = page(tiny, most=4)
    names = {row.name for row in found.rows}
    assert {"gain", "read noise", "linearity", "crosstalk", "counts of stars", "seeing"} <= names
    assert {"rate of cosmic rays", "centroid on the WCS", "pixels of noise-free images"} <= names
    assert failing(found) == set()
    document = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert len(document["rows"]) == len(found.rows)
    assert all(row["holds"] for row in document["rows"])
    assert len(document["curves"][0]["x"]) == len(found.curves[0].x)
