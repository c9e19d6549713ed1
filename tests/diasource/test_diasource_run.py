"""The stage as a whole: rows, ledger and mask against the truth."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline import diasource, ids
from pipeline.diasource import measure
from pipeline.errors import MeasurementError
from pipeline.masks import bits
from pipeline.schema import CANDIDATE, DIA_SOURCE

DEFINED = {  # columns that have a value in every detection of an isolated star
    "ra", "dec", "raErr", "decErr", "ra_dec_Cov", "x", "y", "xErr", "yErr", "x_y_Cov", "snr",
    "psfFlux", "psfFluxErr", "psfLnL", "psfChi2", "psfNdata", "apFlux", "apFluxErr",
    "scienceFlux", "scienceFluxErr", "templateFlux", "templateFluxErr", "ixx", "iyy", "ixy",
    "ixxErr", "iyyErr", "ixyErr", "ixxPSF", "extendedness", "reliability", "reliabilityVersion",
    "templateBackground", "templateBackgroundErr", "midpointMjdTai", "bboxSize", "isNegative",
}  # fmt: skip


def points(table):
    """Detections whose position is that of a point."""
    found = detections(table)
    return found.filter((~found["isTrailed"].to_numpy(zero_copy_only=False)).tolist())


def detections(table):
    return table.filter((table["selectionBits"].to_numpy() == 0).tolist())


def test_every_star_is_found_with_its_sign(lab, field):
    _, at, flux, result = field
    found, rows = lab.match(result.sources, at)
    assert len(found) == len(at)
    assert detections(result.sources).num_rows == len(at)
    negative = result.sources["isNegative"].to_numpy(zero_copy_only=False)[rows]
    np.testing.assert_array_equal(negative, flux < 0)


def test_tables_have_the_declared_columns(field):
    result = field[3]
    assert result.sources.schema.equals(DIA_SOURCE.arrow_schema)
    assert result.candidates.schema.equals(CANDIDATE.arrow_schema)


def test_defined_columns_are_filled(field):
    table = detections(field[3].sources)
    assert {n for n in DEFINED if table[n].null_count} == set()


def test_positions_and_fluxes_agree_with_the_truth(lab, field):
    _, at, flux, result = field
    i, k = lab.match(result.sources, at)
    t = result.sources
    for name, error, truth in (
        ("x", "xErr", at[:, 0]),
        ("y", "yErr", at[:, 1]),
        ("psfFlux", "psfFluxErr", flux),
        ("apFlux", "apFluxErr", flux),
        ("scienceFlux", "scienceFluxErr", flux),
    ):
        pull = (t[name].to_numpy()[k] - truth[i]) / t[error].to_numpy()[k]
        assert 0.85 < pull.std() < 1.18, name
        assert abs(np.mean(pull * np.sign(flux[i]))) < 0.35, name


def test_sky_positions_are_those_of_the_wcs(lab, field):
    scene, _, _, result = field
    t = detections(result.sources)
    ra, dec = scene.difference.exposure.wcs.all_pix2world(t["x"].to_numpy(), t["y"].to_numpy(), 0)
    np.testing.assert_allclose(t["ra"].to_numpy(), ra, atol=1e-7)
    np.testing.assert_allclose(t["dec"].to_numpy(), dec, atol=1e-7)
    # the rotation is 0.3 rad, x and y are equally uncertain
    t = points(result.sources)
    ratio = t["templateFlux"].to_numpy() / t["psfFlux"].to_numpy()
    pull = diasource.Config().registration * np.abs(ratio)
    np.testing.assert_allclose(
        np.hypot(t["psfRaErr"].to_numpy() * 3600, pull), t["xErr"].to_numpy() * lab.SCALE, rtol=0.02
    )


def test_snr_is_the_score_at_the_peak(field):
    scene, _, _, result = field
    t = detections(result.sources)
    assert np.all(t["snr"].to_numpy() > 5)
    ledger = result.candidates
    accepted = ledger.filter(ledger["accepted"])
    score = scene.difference.score
    x, y = (accepted[c].to_numpy().astype(int) for c in "xy")
    np.testing.assert_array_equal(accepted["snr"].to_numpy(), score[y, x])
    by_id = dict(zip(accepted["diaSourceId"].to_pylist(), accepted["snr"].to_pylist(), strict=True))
    for number, snr in zip(t["diaSourceId"].to_pylist(), t["snr"].to_pylist(), strict=True):
        assert snr == pytest.approx(abs(by_id[number]))


def test_ids_are_packed_and_in_order_of_significance(field):
    t = field[3].sources
    numbers = t["diaSourceId"].to_pylist()
    assert numbers == [ids.pack(1, 1, k + 1) for k in range(len(numbers))]
    snr = detections(t)["snr"].to_numpy()
    assert np.all(np.diff(snr) <= 0)


def test_ledger_explains_every_peak(field):
    scene, _, _, result = field
    ledger = result.candidates.to_pylist()
    assert all(abs(row["snr"]) > 3 for row in ledger)
    for row in ledger:
        assert row["accepted"] == (row["rule"] in (None, "reliability"))
        if row["rule"] == "threshold":
            assert row["value"] == pytest.approx(abs(row["snr"]))
            assert row["value"] <= row["bound"] == 5
        if row["accepted"]:
            assert row["diaSourceId"] is not None
    score = scene.difference.score
    inner = np.abs(score[1:-1, 1:-1]) > 3
    assert len(ledger) < inner.sum()


def test_sub_threshold_rows_carry_weights_that_add_up(field):
    _, _, _, result = field
    t, ledger = result.sources, result.candidates
    drawn = t["selectionBits"].to_numpy() == 1
    size = np.abs(ledger["snr"].to_numpy())
    population = np.count_nonzero((size > 4) & (size <= 5))
    assert t["selectionWeight"].to_numpy()[drawn].sum() == pytest.approx(population)
    assert all(t["isSubThreshold"].to_numpy(zero_copy_only=False)[drawn])


def test_detection_planes_follow_the_sign(field):
    scene, at, flux, result = field
    x, y = np.rint(at).astype(int).T
    here = result.mask[y, x]
    assert np.all(here[flux > 0] & bits("DETECTED"))
    assert np.all(here[flux < 0] & bits("DETECTED_NEGATIVE"))
    assert not np.any(here[flux > 0] & bits("DETECTED_NEGATIVE"))
    assert not np.any(scene.difference.exposure.mask)


def test_same_input_same_rows(field):
    scene, _, _, result = field
    again = diasource.run(scene.difference, scene.science, scene.template)
    assert again.sources.equals(result.sources)
    assert again.candidates.equals(result.candidates)


def test_nothing_there_gives_empty_tables(lab):
    rng = np.random.default_rng(0)
    image = np.zeros((64, 64))
    scene = lab.scene(image, np.full((64, 64), lab.SKY), lab.Star(), rng)
    config = diasource.Config(sky_sources=0)
    result = diasource.run(scene.difference, scene.science, scene.template, config)
    assert result.sources.num_rows == result.candidates.num_rows == 0
    assert result.sources.schema.equals(DIA_SOURCE.arrow_schema)


def test_a_score_without_pixels_is_an_error(lab, field):

    scene = field[0]
    dead = replace(scene.difference, score=np.full_like(scene.difference.score, np.nan))
    with pytest.raises(MeasurementError, match="usable"):
        diasource.run(dead, scene.science, scene.template)


def test_sky_errors_hold_the_floor_and_the_pull_of_the_template(field):
    t = points(field[3].sources)
    config = diasource.Config()
    ratio = t["templateFlux"].to_numpy() / t["psfFlux"].to_numpy()
    extra = np.hypot(config.sky_floor, config.registration * np.abs(ratio)) / 3600
    for total, fitted in (("raErr", "psfRaErr"), ("decErr", "psfDecErr")):
        expected = np.hypot(t[fitted].to_numpy(), extra)
        np.testing.assert_allclose(t[total].to_numpy(), expected, rtol=1e-5)


def test_refraction_widens_errors_with_the_distance_from_the_zenith(lab, field):
    scene, config = field[0], diasource.Config()
    assert scene.difference.exposure.info.band == "g"
    errors = {}
    for airmass in (float("nan"), 1.0, 1.4, 2.0):
        info = replace(scene.difference.exposure.info, airmass=airmass)
        exposure = scene.difference.exposure.replace(info=info)
        harmed = replace(scene.difference, exposure=exposure)
        t = points(diasource.run(harmed, scene.science, scene.template).sources)
        errors[airmass] = t["raErr"].to_numpy() * 3600
        fitted = t["psfRaErr"].to_numpy() * 3600
        ratio = np.abs(t["templateFlux"].to_numpy() / t["psfFlux"].to_numpy())
    air = 0.045 * config.colours * np.sqrt(3.0 / 2.0)  # tan z = √3, one of two axes
    extra = np.sqrt(
        config.sky_floor**2 + air**2 + (np.hypot(config.registration, air) * ratio) ** 2
    )
    np.testing.assert_allclose(errors[2.0], np.hypot(fitted, extra), rtol=1e-4)
    np.testing.assert_array_equal(errors[1.0], next(iter(errors.values())))
    assert np.all(errors[1.4] > errors[1.0])


def test_a_fit_that_changed_its_sign_is_not_believed(lab, field, monkeypatch):
    scene = field[0]
    fit = measure.fit_points

    def flipped(*args, **kwargs):
        fits, apart = fit(*args, **kwargs)
        return replace(fits, theta=fits.theta * [-1.0, 1.0, 1.0]), apart

    monkeypatch.setattr(measure, "fit_points", flipped)
    t = detections(diasource.run(scene.difference, scene.science, scene.template).sources)
    assert t["centroid_flag"].to_numpy(zero_copy_only=False).all()
    negative = t["isNegative"].to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(t["psfFlux"].to_numpy() < 0, negative)
    for name, unit in (("xErr", 1.0), ("raErr", lab.SCALE / 3600)):  # the place is that of the peak
        error = t[name].to_numpy() / unit
        assert np.all((error >= 12**-0.5 - 1e-3) & (error < 2.0))


def test_a_peak_that_the_noise_of_stars_hides_is_in_the_ledger(lab):
    rng = np.random.default_rng(3)
    star = lab.Star()
    image, variance = lab.blank((160, 160), rng)
    lab.add(image, variance, star, np.array([[80.0, 70.0]]), [20 * star.sigma_flux()], rng)
    scene = lab.scene(image, variance, star, rng)
    scale = np.ones(image.shape, np.float32)
    scale[55:86, 65:96] = 10.0
    score = scene.difference.score / scale
    hidden = replace(scene.difference, score=score, noise_scale=scale)

    ledger = diasource.run(hidden, scene.science, scene.template).candidates

    rows = [r for r in ledger.to_pylist() if abs(r["x"] - 80) < 2 and abs(r["y"] - 70) < 2]
    x, y = int(rows[0]["x"]), int(rows[0]["y"])
    assert [(r["rule"], r["accepted"]) for r in rows] == [("threshold", False)]
    assert rows[0]["value"] == pytest.approx(abs(score[y, x]))
    assert 1.0 < rows[0]["value"] < 3.0
