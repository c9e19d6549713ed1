"""Blends, dipoles, trails, bad pixels, satellites: each with a known answer."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline import diasource
from pipeline.diasource.detect import find_peaks, flood
from pipeline.diasource.lines import along_streaks, find_glints, find_streaks
from pipeline.masks import NOT_IN_SCORE, bits


def build(lab, at, flux, seed=1, shape=None, size=(220, 240)):
    rng = np.random.default_rng(seed)
    image, variance = lab.blank(size, rng)
    flux = np.asarray(flux) * lab.Star().sigma_flux()
    lab.add(image, variance, lab.Star(), np.asarray(at, float), flux, rng, shape)
    return lab.scene(image, variance, lab.Star(), rng), flux


def measure(scene, **changes):
    config = diasource.Config(sub_random=0, sky_sources=0, **changes)
    return diasource.run(scene.difference, scene.science, scene.template, config)


def with_mask(scene, mask):
    exposure = scene.difference.exposure.replace(mask=mask)
    return replace(scene, difference=replace(scene.difference, exposure=exposure))


def test_blend_keeps_parent_and_children_with_fluxes_apart(lab):
    at = [(100.2, 100.4), (108.1, 100.0)]
    scene, flux = build(lab, at, [200, 120])
    rows = measure(scene).sources.to_pylist()
    parent = [r for r in rows if r["isDeblendParent"]]
    children = [r for r in rows if r["parentDiaSourceId"] is not None]
    assert len(parent) == 1
    assert parent[0]["parentDiaSourceId"] is None
    assert [r["parentDiaSourceId"] for r in children] == 2 * [parent[0]["diaSourceId"]]
    for row, f, (x, y) in zip(children, flux, at, strict=True):
        assert abs(row["psfFlux"] - f) < 4 * row["psfFluxErr"]
        assert np.hypot(row["x"] - x, row["y"] - y) < 0.15
    assert parent[0]["bboxSize"] > max(c["bboxSize"] for c in children)


def test_noise_on_a_bright_star_splits_nothing(lab):
    at = lab.grid((600, 600), 60, np.random.default_rng(4))
    scene, _ = build(lab, at, np.full(len(at), 400.0), size=(600, 600))
    result = measure(scene)
    assert not np.any(result.sources["isDeblendParent"].to_pylist())
    assert result.sources.num_rows == pytest.approx(len(at), abs=1)


def shifted_star(lab, shift, seed=3, flux=4000):
    rng = np.random.default_rng(seed)
    where = np.array([[110.3, 99.8]])

    def parts(k):
        return np.array([[shift / 2, 0, 1.0], [-shift / 2, 0, -1.0]])

    return lab.lobes(lab.Star(), where, np.array([flux * lab.Star().sigma_flux()]), rng, parts, 200)


def test_a_small_shift_of_a_bright_star_is_one_dipole_with_the_right_length(lab):
    result = measure(shifted_star(lab, 0.2))
    (row,) = [r for r in result.sources.to_pylist() if r["isDipole"]]
    assert result.sources.num_rows == 1
    assert row["dipole_flag_unresolved"]
    assert row["dipoleLength"] == pytest.approx(0.2 * lab.SCALE, rel=0.25)
    lobe = [r for r in result.candidates.to_pylist() if r["rule"] == "dipoleLobe"]
    assert [r["diaSourceId"] for r in lobe] == [row["diaSourceId"]]


def test_a_resolved_dipole_points_from_negative_to_positive(lab):
    scene = shifted_star(lab, 6.0, flux=150)
    (row,) = [r for r in measure(scene).sources.to_pylist() if r["isDipole"]]
    cd = scene.science.wcs.wcs.cd
    assert row["dipoleAngle"] == pytest.approx(np.degrees(np.arctan2(cd[0, 0], cd[1, 0])), abs=2)
    assert row["dipoleLength"] == pytest.approx(6 * lab.SCALE, abs=5 * row["dipoleLengthErr"])
    assert abs(row["dipoleFluxDiff"]) < 4 * row["dipoleFluxDiffErr"]


def test_a_lone_star_is_no_dipole(lab, field):
    assert not any(field[3].sources["isDipole"].to_pylist())


def test_trails_are_told_from_points(lab, field):
    def parts(k):
        t = (np.arange(60) + 0.5) / 60 - 0.5
        return np.column_stack([12 * t, 5 * t, np.full(60, 1 / 60)])

    scene, flux = build(lab, [(110.2, 99.6)], [60], shape=parts)
    (row,) = measure(scene).sources.to_pylist()
    assert row["isTrailed"]
    assert row["trailLength"] == pytest.approx(13 * lab.SCALE, abs=4 * row["trailLengthErr"])
    assert abs(row["trailFlux"] - flux[0]) < 4 * row["trailFluxErr"]
    points = field[3].sources.filter((field[3].sources["selectionBits"].to_numpy() == 0).tolist())
    trailed = np.array(points["isTrailed"].to_pylist())
    assert trailed.mean() < 0.03  # Δχ² of 12 for two more parameters is one in 400
    assert points["trailFlux"].null_count == 0


def test_extended_sources_are_extended(lab, field):
    rng = np.random.default_rng(8)
    image, variance = lab.blank((220, 240), rng)
    big = lab.Star(7.0)
    lab.add(image, variance, big, np.array([[100.0, 100.0]]), np.array([8000.0]), rng)
    scene = lab.scene(image, variance, lab.Star(), rng)
    (row,) = measure(scene).sources.to_pylist()
    true = (7.0 / 2.3548 * lab.SCALE) ** 2 + lab.SCALE**2 / 12
    assert row["ixx"] == pytest.approx(true, abs=4 * row["ixxErr"])
    assert row["extendedness"] > 0.95
    points = field[3].sources
    bright = points["snr"].to_numpy() > 120
    assert np.all(points["extendedness"].to_numpy()[bright] < 0.05)


def test_a_negative_image_has_the_same_moments(lab):
    scene, _ = build(lab, [(100.0, 100.0), (150.0, 60.0)], [12, 80])
    d = scene.difference
    flipped = replace(d, exposure=d.exposure.replace(image=-d.exposure.image), score=-d.score)
    a = measure(scene).sources.to_pylist()
    b = measure(replace(scene, difference=flipped)).sources.to_pylist()
    for p, q in zip(a, b, strict=True):
        assert p["ixx"] == pytest.approx(q["ixx"], rel=1e-5)
        assert p["psfFlux"] == pytest.approx(-q["psfFlux"], rel=1e-5)
        assert p["isNegative"] != q["isNegative"]


@pytest.mark.parametrize("plane", diasource.Config().veto)
def test_a_bad_centre_stops_a_peak_and_says_why(lab, plane):
    scene, _ = build(lab, [(100.0, 100.0), (170.0, 170.0)], [50, 50])
    mask = np.zeros(scene.science.shape, np.uint32)
    mask[99:102, 99:102] = bits(plane)
    result = measure(with_mask(scene, mask))
    assert result.sources.num_rows == 1
    (row,) = [r for r in result.candidates.to_pylist() if r["rule"] == f"mask:{plane}"]
    assert not row["accepted"]
    assert (row["x"], row["y"]) == (100, 100)


def test_a_veto_that_is_not_configured_stops_nothing(lab):
    scene, _ = build(lab, [(100.0, 100.0)], [50])
    mask = np.full(scene.science.shape, bits("EDGE"))
    assert measure(with_mask(scene, mask), veto=()).sources.num_rows == 1


def test_the_excluded_planes_follow_the_veto(lab):
    scene, _ = build(lab, [(100.0, 100.0)], [50])
    score = bits(*NOT_IN_SCORE - {"STREAK"})  # no image brought a trail along
    assert measure(scene).excluded == score
    assert measure(scene, veto=("SUSPECT",)).excluded == score | bits("SUSPECT")
    mask = np.zeros(scene.science.shape, np.uint32)
    mask[3, 5] = bits("STREAK")
    assert measure(with_mask(scene, mask), veto=()).excluded == bits(*NOT_IN_SCORE)


def test_too_few_good_pixels_stop_a_peak_with_the_number(lab):
    scene, _ = build(lab, [(100.0, 100.0)], [50])
    mask = np.zeros(scene.science.shape, np.uint32)
    mask[96:105, 97:104] = bits("CR")
    mask[100, 100] = 0
    result = measure(with_mask(scene, mask))
    (row,) = [r for r in result.candidates.to_pylist() if r["rule"] == "goodFraction"]
    assert 0 < row["value"] < row["bound"] == 0.4
    assert result.sources.num_rows == 0


def test_pixel_flags_tell_footprint_from_centre(lab):
    scene, _ = build(lab, [(100.0, 100.0)], [80])
    mask = np.zeros(scene.science.shape, np.uint32)
    mask[103, 103] = bits("INTRP", "SUSPECT", "CROSSTALK")
    mask[101, 101] |= bits("CR")
    (row,) = measure(with_mask(scene, mask)).sources.to_pylist()
    flags = {k for k, v in row.items() if k.startswith("pixelFlags") and v}
    assert flags == {
        "pixelFlags_interpolated", "pixelFlags_suspect", "pixelFlags_crosstalk", "pixelFlags_cr",
        "pixelFlags_crCenter",
    }  # fmt: skip


def test_sub_threshold_peaks_near_a_place_are_kept(lab):
    scene, _ = build(lab, [(100.0, 100.0)], [30], seed=5, size=(400, 420))
    table = diasource.run(scene.difference, scene.science, scene.template).candidates.to_pylist()
    peak = next(r for r in table if 4 < abs(r["snr"]) <= 5)
    ra, dec = scene.science.wcs.all_pix2world(peak["x"] + 1, peak["y"], 0)
    config = diasource.Config(sub_random=0, sky_sources=0)
    near = {"ephemeris": ([float(ra)], [float(dec)])}
    rows = diasource.run(scene.difference, scene.science, scene.template, config, near=near).sources
    kept = [r for r in rows.to_pylist() if r["isSubThreshold"]]
    assert [(r["selectionBits"], r["selectionWeight"]) for r in kept] == [(4, 1.0)]
    assert kept[0]["snr"] == pytest.approx(abs(peak["snr"]))


def test_a_satellite_trail_is_flagged_and_masked(lab):
    def parts(k):
        t = np.linspace(-80, 80, 321)
        return np.column_stack([t, 0.4 * t, np.full(321, 1 / 321)])

    scene, _ = build(lab, [(150.0, 150.0)], [1500], shape=parts, size=(300, 300))
    result = measure(scene)
    assert any(r["isStreak"] for r in result.sources.to_pylist())
    assert result.mask[150, 150] & bits("STREAK")
    assert not result.excluded & bits("STREAK")  # it was found, so not excluded


def test_glints_on_a_line_are_found_and_a_crowd_is_not():
    rng = np.random.default_rng(9)
    crowd = rng.uniform(0, 2000, (60, 2))
    assert not find_glints(crowd, (4000, 2000)).any()
    t = np.linspace(0, 1, 8)[:, None]
    line = np.array([[100.0, 300.0]]) + t * [[1500.0, 2000.0]] + rng.normal(0, 0.3, (8, 2))
    found = find_glints(np.vstack([crowd, line]), (4000, 2000))
    assert found[60:].all()
    assert found[:60].sum() <= 1


def test_glints_along_a_column_are_a_bad_column():
    at = np.column_stack([np.full(9, 700.0), np.linspace(100, 1900, 9)])
    assert not find_glints(at, (2000, 2000)).any()


def test_the_pieces_of_a_trail_are_streaks_and_what_lies_beside_it_is_none():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:900, :700]
    across = (y - 100 - 1.1 * x) / np.hypot(1.0, 1.1)
    score = (9.0 * np.exp(-0.5 * (across / 2.0) ** 2)).astype(np.float32)
    score[(x // 40) % 3 > 0] = 0.0  # two thirds of it are too faint
    score[:, 200:300] = np.where(np.abs(across) < 6, 9.0, 0)[:, 200:300]
    stars = rng.uniform(30, 670, (60, 2)).astype(int)
    for i, j in stars:
        score[j - 2 : j + 3, i - 2 : i + 3] = 20.0
    score += rng.normal(0, 0.01, score.shape).astype(np.float32)
    footprints = flood(score, *find_peaks(score, 3.0), 5.0)
    streaks = find_streaks(footprints, 700)

    pieces = along_streaks(footprints, streaks, 700)

    centre = [np.mean(np.divmod(footprints.of(k), 700), axis=1) for k in range(len(streaks))]
    distance = np.array([abs(across[round(v), round(u)]) for v, u in centre])
    assert 1 <= streaks.sum() < pieces.sum()
    assert np.all(pieces[distance < 2.5])
    assert not np.any(pieces[distance > 4.0])
    np.testing.assert_array_equal(along_streaks(footprints, streaks & False, 700), streaks & False)
