"""Overscan, crosstalk, saturation, bleeds, defects and bad columns with known answers."""

import dataclasses

import numpy as np
import pytest

from pipeline import isr
from pipeline.camera import Camera, Crosstalk
from pipeline.errors import PixelError
from pipeline.fill import fill_holes
from pipeline.isr import overscan
from pipeline.isr.columns import find_columns
from pipeline.isr.config import Config
from pipeline.isr.correct import linearity_table
from pipeline.isr.flags import flag_bleeds, flag_edges, grow_saturation
from pipeline.masks import bits


@pytest.fixture
def south():
    return Camera.load("testcam").detector(1)


def _run(scene, detector, **settings):
    config = isr.Config(**settings)
    return isr.run(scene.raw, detector, isr.Calibs(scene.bias, scene.flat), config)


def test_level_follows_drift_and_step(tools, detector):
    scene = tools.build(detector, np.zeros(detector.shape), step=4.0)
    rows = np.arange(detector.raw_shape[0])
    for amp in detector.amplifiers:
        level = overscan.measure(scene.raw.data, amp, detector.bias_step_row, Config())
        truth = 2000.0 + 0.5 * np.sin(rows / 80.0)
        if detector.bias_step_row:
            truth[detector.bias_step_row :] += 4.0
        truth = (truth[::-1] if amp.at_top else truth)[amp.data.y0 : amp.data.y1]
        columns = amp.overscan.shape[1] - 10
        error = amp.read_noise / amp.gain / np.sqrt(columns * 26)  # at the ends of a segment
        assert np.abs(level.rows - truth).max() < 5 * error + 0.05
        assert np.std(level.rows - truth) < error + 0.05
        assert not level.corrupted.any()


def test_rows_with_corrupted_overscan_are_rejected_and_masked(tools, south):
    scene = tools.build(south, np.full(south.shape, 420.0))
    amp = south.amplifier("A")  # read from the top: these rows come first
    hit = slice(amp.data.y1 - 20, amp.data.y1)
    scene.raw.data[hit, amp.overscan.x0 : amp.overscan.x1] += 150
    result = _run(scene, south)
    mask = result.exposure.mask[amp.trimmed.slices] & bits("EDGEBLEED") != 0
    assert mask[-20:].all()
    assert not mask[:-20].any()
    assert result.metrics["overscanRejected_A"] == 20
    assert result.metrics["overscanRejected_B"] == 0
    sky = result.exposure.image[amp.trimmed.slices][-20:]
    assert np.median(sky) == pytest.approx(420.0, abs=3.0)


def test_crosstalk_is_removed_above_and_below_the_onset(tools, detector):
    detector = detector.replace(defects=())
    source = detector.amplifier(detector.crosstalk[0].source_amp)
    for counts in (20_000.0, 0.95 * source.saturation):
        electrons = np.full(detector.shape, 400.0)
        bright = np.zeros(source.data.shape, bool)
        bright[20:120] = True
        electrons[source.trimmed.slices][bright] = counts * source.gain
        scene = tools.build(detector, electrons)
        dirty = _run(scene, detector, crosstalk=False).exposure.image
        clean = _run(scene, detector).exposure.image
        own = [c for c in detector.crosstalk if c.source == detector.number]
        for entry in (c for c in own if c.source_amp == source.name):
            victim = detector.amplifier(entry.victim_amp)
            ghost = tools.oriented(tools.oriented(bright, source), victim)
            seen = np.array(
                [f[victim.trimmed.slices][ghost].mean() - 400.0 for f in (dirty, clean)]
            )
            expected = float(tools.leak(entry, np.array(counts))) * victim.gain
            assert seen[0] == pytest.approx(expected, rel=0.15, abs=1.5)
            assert seen[1] == pytest.approx(0.0, abs=1.5)


def test_crosstalk_from_a_partner_is_removed_and_its_absence_noted(tools, south):
    amp = south.amplifier("A")
    entry = Crosstalk(1, "A", 7, "B", 4e-4, 1e-6, 4e4, 8e-4, 0.0, 0.0)
    victim = south.replace(crosstalk=(entry,), defects=())
    counts = np.zeros(amp.data.shape)
    counts[100:120, 30:50] = 30_000.0
    partner = tools.build(south.replace(crosstalk=()), np.zeros(south.shape), noise=False)
    partner.raw.data[south.amplifier("B").data.slices] += counts.astype(np.uint16)
    scene = tools.build(
        victim, np.full(south.shape, 400.0), noise=False, partners={(7, "B"): counts}
    )
    calibs = isr.Calibs(scene.bias, scene.flat)
    alone = isr.run(scene.raw, victim, calibs)
    assert alone.notes == ("inter-CCD crosstalk from 7 not applied: frame absent",)
    assert alone.metrics["crosstalkPartnersMissing"] == 1
    assert alone.metrics["crosstalkLargest_A"] == 0
    both = isr.run(scene.raw, victim, calibs, partners={7: partner.raw})
    assert both.notes == ()
    ghost = np.zeros(south.shape, bool)
    ghost[amp.trimmed.slices] = (
        tools.oriented(tools.oriented(counts, south.amplifier("B")), amp) > 0
    )
    assert alone.exposure.image[ghost].mean() - 400.0 == pytest.approx(12.0 * amp.gain, abs=2.5)
    assert both.exposure.image[ghost].mean() - 400.0 == pytest.approx(0.0, abs=2.5)


def test_victims_of_saturated_pixels_are_flagged(tools, south):
    electrons = np.full(south.shape, 400.0)
    electrons[100:110, 300:310] = 60_000 * 4.0  # amplifier A, above saturation
    mask = _run(tools.build(south, electrons), south).exposure.mask
    flagged = np.argwhere(mask & bits("CROSSTALK"))
    assert len(flagged)
    assert set(flagged[:, 0]) <= set(range(100, 110))
    assert set(flagged[:, 1]) <= {511 - x for x in range(300, 310)}


def test_linearity_is_continued_to_the_end_of_its_range(south):
    amp = south.amplifier("A")
    table, limit = linearity_table(amp)
    last = int(np.flatnonzero(amp.linearity)[-1])
    nodes, values = amp.linearity_nodes, amp.linearity
    np.testing.assert_allclose(table[nodes[: last + 1].astype(int)], values[: last + 1])
    assert limit == nodes[last + 1]
    slope = (values[last] - values[last - 1]) / (nodes[last] - nodes[last - 1])
    assert table[int(nodes[last]) + 100] == pytest.approx(values[last] + 100 * slope)
    flat, end = linearity_table(amp, apply=False)
    assert not flat.any()
    assert end == np.inf


def test_linearity_restores_the_scale(tools, detector):
    detector = detector.replace(crosstalk=(), defects=())
    electrons = np.full(detector.shape, 400.0)
    ramp = np.linspace(1_000, 100_000, detector.shape[1])
    electrons[40:60] = ramp
    exposure = _run(tools.build(detector, electrons), detector, find_columns=False).exposure
    good = ~exposure.has("SAT")[40:60].any(axis=0)
    assert good.mean() > 0.5
    seen = exposure.image[42:58].mean(axis=0)
    pull = (seen - ramp)[good] / np.sqrt((ramp[good] + 36) / 16)
    assert np.abs(np.mean(pull)) < 0.3
    assert np.std(pull) == pytest.approx(1.0, abs=0.15)


def test_saturation_is_judged_on_the_amplifiers_own_counts(tools, south):
    electrons = np.full(south.shape, 400.0)
    for k, amp in enumerate(south.amplifiers):
        y = 50 + 20 * k
        electrons[y, amp.trimmed.x0 + 40] = 1.03 * amp.saturation * amp.gain
        electrons[y, amp.trimmed.x0 + 80] = 0.90 * amp.saturation * amp.gain
    scene = tools.build(south, electrons, noise=False)
    mask = _run(scene, south, saturation_growth=0).exposure.mask & bits("SAT") != 0
    for k, amp in enumerate(south.amplifiers):
        assert mask[50 + 20 * k, amp.trimmed.x0 + 40]
        assert not mask[50 + 20 * k, amp.trimmed.x0 + 80]
    grown = _run(scene, south, saturation_growth=1).exposure.mask & bits("SAT") != 0
    assert grown.sum() == 9 * mask.sum()


def test_bleeds_are_followed_to_their_ends():
    rng = np.random.default_rng(2)
    image = rng.normal(400, 20, (200, 60)).astype(np.float32)
    variance = np.full_like(image, 400)
    mask = np.zeros(image.shape, np.uint32)
    mask[80:120, 30] = bits("SAT")
    image[80:120, 30] = 1.7e5
    image[76:80, 30] = [600, 4_000, 30_000, 90_000]
    image[120:122, 30] = [20_000, 900]
    mask[50, 10] = bits("SAT")  # a single pixel is no bleed
    flag_bleeds(image, variance, mask, Config())
    rows = np.flatnonzero(mask[:, 30] & bits("BLEED"))
    assert rows[0] <= 76
    assert rows[-1] >= 121
    assert len(rows) <= 50
    assert not (mask[:, :30] & bits("BLEED")).any()


def test_every_listed_defect_is_masked_and_filled(tools, south):
    scene = tools.build(south, np.full(south.shape, 420.0))
    for box in south.defects:
        where = (slice(box.y0, box.y0 + box.height), slice(box.x0, box.x0 + box.width))
        raw = south.amplifier("B" if box.x0 < 256 else "A")
        y, x = raw.data.y0 + box.y0, raw.data.x0 + box.x0 - raw.trimmed.x0
        scene.raw.data[y : y + box.height, x : x + min(box.width, 256)] = 2000
        exposure = _run(scene, south).exposure
        assert exposure.has("BAD")[where].all()
    narrow = exposure.has("BAD") & exposure.has("INTRP")
    assert narrow.sum() > 0.9 * exposure.has("BAD").sum()
    assert exposure.image[narrow].mean() == pytest.approx(420.0, abs=2.0)
    assert exposure.variance[narrow].mean() == pytest.approx(420.0 + 36, rel=0.1)


def _sky(shape=(2048, 1024), seed=3):
    rng = np.random.default_rng(seed)
    image = rng.normal(400, 21, shape).astype(np.float32)
    return image, np.full(shape, 441.0, np.float32), np.zeros(shape, np.uint32)


@pytest.mark.parametrize(
    ("rows", "offset"),
    [(slice(0, 2048), 60.0), (slice(950, 2048), -100.0), (slice(0, 700), 25.0)],
)
def test_unlisted_columns_are_found(rows, offset):
    image, variance, mask = _sky()
    for x in (40, 200, 201, 333):
        image[rows, x] += offset
    found = find_columns(image, variance, mask, Config())
    truth = np.zeros(image.shape, bool)
    truth[rows][:, [40, 200, 201, 333]] = True
    assert (found & truth).sum() / truth.sum() >= 0.95
    assert (found & ~truth).sum() / truth.size < 5e-4


def test_large_defect_does_not_cut_a_column_in_pieces():
    image, variance, mask = _sky()
    image[700:, 500] += 60.0
    mask[900:1400, 480:520] = bits("BAD")
    found = find_columns(image, variance, mask, Config())
    assert found[720:, 500].all()


def test_stars_galaxies_and_sky_are_no_columns():
    image, _, mask = _sky((1024, 512))
    yy, xx = np.mgrid[:1024, :512]
    rng = np.random.default_rng(9)
    for flux, width in ((3e5, 2.0), (3e6, 3.0), (1e6, 40.0), (2e5, 12.0)):
        for _ in range(6):
            y, x = rng.uniform(0, 1024), rng.uniform(0, 512)
            r2 = (yy - y) ** 2 + (xx - x) ** 2
            image += (flux / width**2 / 6.3 * (1 + r2 / (4 * width**2)) ** -2).astype(np.float32)
    mask[image > 1.6e5] = bits("SAT")
    image += 40 * (xx / 512).astype(np.float32)
    assert not find_columns(image, image + 41, mask, Config()).any()


def test_edges_and_growth_have_the_stated_width():
    mask = np.zeros((40, 50), np.uint32)
    flag_edges(mask, 3)
    inner = np.zeros(mask.shape, bool)
    inner[3:-3, 3:-3] = True
    np.testing.assert_array_equal(mask == 0, inner)
    mask[:] = 0
    mask[0, 7] = bits("SAT")
    grow_saturation(mask, 2)
    assert np.count_nonzero(mask) == 15


def test_filling_crosses_a_column_along_rows_and_a_row_along_columns():
    yy, xx = np.mgrid[:40, :50].astype(np.float32)
    image = 100 + 2 * xx + 3 * yy
    variance = 50 + xx
    for holes in (np.s_[:, 20], np.s_[15, :], np.s_[10:12, 30:33]):
        flagged = np.zeros(image.shape, bool)
        flagged[holes] = True
        broken, spread = image.copy(), variance.copy()
        broken[holes], spread[holes] = np.nan, np.nan
        filled = fill_holes(broken, spread, flagged, np.zeros_like(flagged), 8)
        assert filled[flagged].all()
        np.testing.assert_allclose(broken[1:-1, 1:-1], image[1:-1, 1:-1], rtol=1e-5)
        np.testing.assert_allclose(spread[1:-1, 1:-1], variance[1:-1, 1:-1], rtol=1e-5)


def test_wide_holes_keep_their_inner_pixels():
    image = np.ones((60, 60), np.float32)
    holes = np.zeros(image.shape, bool)
    holes[10:50, 10:50] = True
    image[holes] = 7.0
    filled = fill_holes(image, np.ones_like(image), holes, np.zeros_like(holes), 5)
    assert not filled[20:40, 20:40].any()
    assert (image[20:40, 20:40] == 7.0).all()
    assert filled[10, 30]


def test_flat_without_response_is_no_data(tools, south):
    scene = tools.build(south, np.full(south.shape, 420.0))
    scene.flat[100, 200] = 0.0
    scene.flat[101, 200] = np.nan
    exposure = _run(scene, south, interpolate=False).exposure
    assert exposure.has("NO_DATA")[100:102, 200].all()
    assert np.isnan(exposure.image[100:102, 200]).all()
    assert exposure.has("NO_DATA").sum() == 2


def test_frame_without_usable_pixels_is_a_typed_failure(tools, south):
    scene = tools.build(south, np.full(south.shape, 420.0))
    with pytest.raises(PixelError, match="no usable pixel"):
        isr.run(scene.raw, south, isr.Calibs(flat=np.zeros(south.shape, np.float32)))


def test_coordinates_follow_the_trim(tools, south):
    scene = tools.build(south, np.full(south.shape, 420.0))
    header = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0,
        "CRPIX1": 156.0, "CRPIX2": 250.0, "CDELT1": -7e-5, "CDELT2": 7e-5,
    }  # fmt: skip
    raw = dataclasses.replace(scene.raw, header=header)
    wcs = isr.run(raw, south, isr.Calibs(scene.bias, scene.flat)).exposure.wcs
    # Raw pixel (57, 51) of the FITS section is the first trimmed one.
    x, y = wcs.all_world2pix(150.0, 2.0, 0)
    assert (float(x), float(y)) == pytest.approx((156.0 - 57.0, 250.0 - 51.0), abs=1e-6)
