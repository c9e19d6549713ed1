"""Whole campaigns: files, determinism, what a frame says about its truth."""

from __future__ import annotations

import hashlib
import json
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
from sims.artefacts import ARTEFACTS, bit
from sims.calibration import nominal_camera, true_flat
from sims.rawfile import pieces

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
    camera = nominal_camera(campaign / "calib" / "camera", "testcam")
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


def test_extensions_come_in_any_order(campaign: Path) -> None:
    orders = {tuple(pieces(path)) for path in campaign.glob("raw/*.fz")}
    assert orders == {(1, 2), (2, 1)}


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
    nominal = nominal_camera(campaign / "calib" / "camera", "testcam").detector(1)
    true = Camera.load("testcam").detector(1)
    for a, b in zip(nominal.amplifiers, true.amplifiers, strict=True):
        assert 0 < abs(a.gain / b.gain - 1) < 0.01
        assert 0.98 < a.saturation / b.saturation <= 1
        ratio = a.linearity[b.linearity != 0] / b.linearity[b.linearity != 0]
        assert np.abs(ratio - 1).max() < 0.05
    for a, b in zip(nominal.crosstalk, true.crosstalk, strict=True):
        assert 0 < abs(a.coefficient - b.coefficient) < 5 * b.coefficient_err
        assert a.onset == b.onset
    assert nominal.defects == true.defects
    flat = fits.getdata(campaign / "calib" / "flat_g_01.fits")
    assert flat.mean() == pytest.approx(1.0, abs=1e-5)
    # The image in nominal electrons over this flat has no step between the channels.
    response = true_flat(5, "g", Camera.load("testcam"), true)
    gains = [nominal.amplifier(a.name).gain / a.gain for a in true.amplifiers]
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
                (conditions.nominal.ra - conditions.pointing.ra)
                * np.cos(np.radians(visit.dec)) * 3600,
                (conditions.nominal.dec - conditions.pointing.dec) * 3600,
            ]
        )  # fmt: skip
        assert 0.1 < np.hypot(*error) < 12.0
        assert np.hypot(*np.median(offset, axis=1)) == pytest.approx(np.hypot(*error), abs=0.15)
