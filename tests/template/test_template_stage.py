"""Warping and coaddition with known answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from astropy.wcs import WCS

from pipeline import template
from pipeline.errors import TemplateError
from pipeline.exposure import Exposure, GridPsf, VisitInfo
from pipeline.masks import NO_SKY, bits
from pipeline.template.lanczos import autocorrelation, table, weights
from pipeline.template.mapping import Mapping
from pipeline.template.psf import warped_psf
from pipeline.template.warp import Warper

SCALE = 0.263 / 3600


def sky(shift: tuple[float, float] = (0, 0), degrees: float = 0.0, size: int = 300) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [size / 2 + shift[0], size / 2 + shift[1]]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    wcs.wcs.cd = SCALE * np.array([[-c, s], [s, c]])
    return wcs


def psf_of(sigma: float) -> GridPsf:
    u = np.arange(-15, 16)
    line = np.exp(-0.5 * (u / sigma) ** 2)
    stamp = np.outer(line, line) / line.sum() ** 2
    return GridPsf(stamp[None, None], np.zeros(1), np.zeros(1))


Maker = Callable[..., Exposure]


@pytest.fixture(scope="module")
def stars() -> tuple[np.ndarray, np.ndarray]:
    """A grid of isolated stars, at sub-pixel positions of all kinds."""
    side = np.arange(-3, 4) * 34.37 * SCALE
    ra, dec = np.meshgrid(150.0 + side, 2.0 + side)
    return ra.ravel(), dec.ravel()


@pytest.fixture(scope="module")
def make(stars) -> Maker:
    def exposure(
        visit: int = 1,
        shift: tuple[float, float] = (0.0, 0.0),
        degrees: float = 0.0,
        sigma: float = 1.8,
        noise: float = 0.0,
        flux: float = 1e5,
        size: int = 300,
    ) -> Exposure:
        wcs = sky(shift, degrees, size)
        x, y = wcs.all_world2pix(*stars, 0)
        pixel = np.arange(size)
        along = [np.exp(-0.5 * ((pixel[:, None] - c) / sigma) ** 2) for c in (y, x)]
        image = flux / (2 * np.pi * sigma**2) * along[0] @ along[1].T
        image = image + noise * np.random.default_rng(visit).normal(size=image.shape)
        return Exposure(
            image=image.astype(np.float32),
            variance=np.full(image.shape, max(noise, 1.0) ** 2, np.float32),
            mask=np.zeros(image.shape, np.uint32),
            info=VisitInfo(visit, 5, "g", 60.0, 57000.0 + visit),
            wcs=wcs,
            psf=psf_of(sigma),
            unit="nJy",
        )

    return exposure


def aperture(image: np.ndarray, x: float, y: float, radius: int = 12) -> tuple[float, float, float]:
    i, j = round(x), round(y)
    box = image[j - radius : j + radius + 1, i - radius : i + radius + 1].astype(float)
    v, u = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    total = box.sum()
    return total, (box * u).sum() / total + i - x, (box * v).sum() / total + j - y


class TestWeights:
    def test_zeroth_and_first_moment(self):
        phase = np.linspace(0, 1, 101)
        w = weights(phase)
        offset = np.arange(-2, 4) - phase[:, None]
        assert w.sum(1) == pytest.approx(1.0, abs=1e-12)
        assert (w * offset).sum(1) == pytest.approx(0.0, abs=1e-12)

    def test_whole_pixels_are_copied(self):
        assert weights(0.0) == pytest.approx([0, 0, 1, 0, 0, 0], abs=1e-12)

    def test_autocorrelation_adds_up_to_the_noise_on_large_scales(self):
        assert autocorrelation(np.linspace(0, 1, 50)).sum() == pytest.approx(1.0, abs=1e-12)


class TestWarp:
    def test_flux_and_place_of_stars(self, make, stars):
        """Flux to 10⁻⁴, which normalised but uncorrected weights miss by ten times."""
        wcs = sky((3.3, -2.6), 0.7)
        out = template.warp(make(), wcs, (300, 300))
        x, y = wcs.all_world2pix(*stars, 0)
        inside = (np.abs(x - 150) < 110) & (np.abs(y - 150) < 110)
        found = np.array([aperture(out.image, u, v) for u, v in zip(x, y, strict=True)])[inside]
        assert found[:, 0].std() < 1e-4 * 1e5
        assert found[:, 0].mean() == pytest.approx(1e5, rel=1e-4)
        assert np.abs(found[:, 1:]).max() < 0.002

    def test_flux_follows_the_pixel_area(self, make, stars):
        wcs = sky()
        wcs.wcs.cd = wcs.wcs.cd * 1.04
        out = template.warp(make(), wcs, (280, 280))
        x, y = wcs.all_world2pix(*stars, 0)
        totals = [aperture(out.image, u, v)[0] for u, v in zip(x[20:29], y[20:29], strict=True)]
        assert np.array(totals) == pytest.approx(1e5, rel=2e-3)

    def test_variance_is_exact_and_noise_correlation_known(self, make):
        rng = np.random.default_rng(8)
        blank = make(flux=0.0, size=1000)
        blank = blank.replace(image=rng.normal(size=(1000, 1000)).astype(np.float32))
        out = template.warp(blank, sky((0.37, 0.21), 0.02, 1000), (990, 990))
        z = np.nan_to_num(out.image / np.sqrt(out.variance))[10:-10, 10:-10]
        assert z.std() == pytest.approx(1.0, abs=0.005)
        tiles = out.noise_correlation
        assert tiles.shape[:2] == (8, 8)
        assert tiles[:, :, 7, 7] == pytest.approx(1.0)
        for lag in ((0, 1), (1, 0), (1, 1), (0, 2)):
            product = z[: 970 - lag[0], : 970 - lag[1]] * z[lag[0] :, lag[1] :]
            expected = tiles[:, :, 7 + lag[0], 7 + lag[1]].mean()
            assert product.mean() == pytest.approx(expected, abs=0.006)

    def test_twice_warped_noise(self, make):
        rng = np.random.default_rng(9)
        blank = make(flux=0.0, size=900)
        blank = blank.replace(image=rng.normal(size=(900, 900)).astype(np.float32))
        once = template.warp(blank, sky((0.5, 0.5), 0.0, 900), (890, 890))
        twice = template.warp(once, sky((0.1, 0.8), 0.0, 900), (880, 880))
        z = np.nan_to_num(twice.image / np.sqrt(twice.variance))[20:-20, 20:-20]
        assert z.std() == pytest.approx(1.0, abs=0.01)
        expected = twice.noise_correlation[:, :, 7, 8].mean()
        assert (z[:, 1:] * z[:, :-1]).mean() == pytest.approx(expected, abs=0.01)

    def test_psf_is_that_of_the_warped_star(self, make, stars):
        wcs = sky((0.4, 0.3), 0.9)
        out = template.warp(make(sigma=1.5), wcs, (300, 300))
        x, y = wcs.all_world2pix(*stars, 0)
        u = np.arange(-12, 13)
        sizes = []
        for a, b in zip(x, y, strict=True):
            i, j = round(a), round(b)
            if 40 < i < 260 and 40 < j < 260:
                box = out.image[j - 12 : j + 13, i - 12 : i + 13].astype(float) / 1e5
                sizes.append((box * ((u[None] + i - a) ** 2 + (u[:, None] + j - b) ** 2)).sum())
        stamp = out.psf.at(150, 150)[3:28, 3:28]
        model = (stamp * (u[None] ** 2 + u[:, None] ** 2)).sum()
        assert model == pytest.approx(np.mean(sizes), rel=0.004)

    def test_outside_is_no_data(self, make):
        out = template.warp(make(), sky((-100, 0)), (300, 300))
        assert (out.mask[:, 205:] & bits("NO_DATA")).sum() == 0 or np.isnan(out.image).any()
        missing = (out.mask & bits("NO_DATA")) != 0
        assert 0.3 < missing.mean() < 0.4
        assert np.isnan(out.image[missing]).all()
        assert np.isnan(out.variance[missing]).all()
        assert np.isfinite(out.image[~missing]).all()

    def test_masks_reach_the_nearest_two_by_two_pixels(self, make):
        source = make()
        source.mask[150, 150] = bits("CR")
        out = template.warp(source, sky((0.5, 0.5)), (300, 300))
        assert np.count_nonzero(out.mask & bits("CR")) == 4

    def test_mapping_is_good_to_a_thousandth_of_a_pixel(self):
        from pipeline.template.mapping import sky_mapping

        source, target = sky((10, 20), 1.0), sky()
        source.wcs.ctype = ["RA---TPV", "DEC--TPV"]
        source.wcs.set_pv([(1, 1, 1.0), (1, 7, 8e-1), (2, 1, 1.0), (2, 10, -9e-1), (1, 4, 0.02)])
        mapping = sky_mapping(source, target, (300, 300), 32)
        x, y = (a.ravel() for a in np.meshgrid(np.arange(3, 300, 7.0), np.arange(5, 300, 7.0)))
        exact = source.all_world2pix(target.all_pix2world(np.column_stack([x, y]), 0), 0)
        u, v = mapping.at(x, y)
        assert np.hypot(u - exact[:, 0], v - exact[:, 1]).max() < 1e-3

    def test_no_overlap_and_no_coordinates(self, make):
        away = sky()
        away.wcs.crval = [151.0, 2.0]
        with pytest.raises(TemplateError, match="overlap"):
            template.warp(make(), away, (300, 300))
        with pytest.raises(TemplateError, match="without sky"):
            template.warp(make().replace(wcs=None), sky(), (300, 300))


class TestPatch:
    def test_covers_the_inputs_whatever_their_order(self, make):
        inputs = [make(visit, shift, turn) for visit, shift, turn in
                  ((3, (5, 7), 0.2), (1, (-6, 2), 0.0), (2, (0, 0), -0.3))]  # fmt: skip
        wcs, shape = template.patch(inputs)
        again, same = template.patch(inputs[::-1])
        assert shape == same
        assert str(wcs.to_header()) == str(again.to_header())
        for e in inputs:
            corners = np.array([[0, 0], [299, 0], [0, 299], [299, 299]], float)
            at = wcs.all_world2pix(e.wcs.all_pix2world(corners, 0), 0)
            assert (at > 14).all()
            assert (at[:, 0] < shape[1] - 15).all()
            assert (at[:, 1] < shape[0] - 15).all()

    def test_keeps_the_parity_of_the_detector(self, make):
        wcs, _ = template.patch([make()])
        assert np.sign(np.linalg.det(wcs.pixel_scale_matrix)) == -1


@pytest.fixture(scope="module")
def inputs(make):
    offsets = ((0.0, 0.0), (2.3, 1.1), (-1.7, 3.6), (4.1, -2.2))
    return [
        make(visit + 1, offset, 0.05 * visit, 1.6 + 0.1 * visit, noise=5.0 + visit)
        for visit, offset in enumerate(offsets)
    ]


class TestCoadd:
    def test_noise_flux_and_psf(self, inputs, stars):
        wcs, shape = template.patch(inputs)
        result = template.run(inputs, wcs, shape)
        coadd = result.template
        x, y = wcs.all_world2pix(*stars, 0)
        flux = [aperture(coadd.image, a, b)[0] for a, b in zip(x, y, strict=True)]
        noise = float(np.sqrt(625 * np.nanmedian(coadd.variance)))
        assert np.mean(flux) == pytest.approx(1e5, abs=4 * noise / 7)
        blank = np.isfinite(coadd.image) & (coadd.image < 20) & (coadd.mask == 0)
        z = (coadd.image / np.sqrt(coadd.variance))[blank]
        low, high = np.percentile(z, [15.865, 50])
        assert high - low == pytest.approx(1.0, abs=0.03)
        model = coadd.psf.at(x[24], y[24])
        assert model[coadd.psf.side // 2, coadd.psf.side // 2] == pytest.approx(
            np.mean([1 / (2 * np.pi * (1.6 + 0.1 * k) ** 2) for k in range(4)]), rel=0.06
        )

    def test_weights_are_inverse_variances_and_recorded(self, inputs):
        wcs, shape = template.patch(inputs)
        result = template.run(inputs[::-1], wcs, shape)
        expected = np.array([1 / (5.0 + k) ** 2 for k in range(4)])
        assert result.inputs["visit"].to_pylist() == [1, 2, 3, 4]
        assert result.inputs["weight"].to_numpy() == pytest.approx(
            expected / expected.sum(), rel=1e-6
        )
        assert result.template.provenance["NTMPLIN"] == 4
        assert result.template.provenance["TMPLIN1"] == "1_05"

    def test_bands_do_not_matter(self, inputs):
        wcs, shape = template.patch(inputs)
        whole, banded = (
            template.run(inputs, wcs, shape, template.Config(band_rows=rows)).template
            for rows in (1000, 64)
        )
        assert np.array_equal(whole.image, banded.image, equal_nan=True)
        assert np.array_equal(whole.mask, banded.mask)

    def test_an_asteroid_is_rejected_and_cores_survive(self, inputs):
        moved = [e.replace(image=e.image.copy()) for e in inputs]
        rows, columns = np.mgrid[:300, :300]
        blob = np.exp(-0.5 * ((columns - 133) ** 2 + (rows - 168) ** 2) / 1.7**2)
        moved[2].image[:] += (2000 * blob).astype(np.float32)
        wcs, shape = template.patch(inputs)
        clean = template.run(inputs, wcs, shape).template
        result = template.run(moved, wcs, shape)
        sky_at = moved[2].wcs.all_pix2world(133, 168, 0)
        i, j = (round(float(v)) for v in wcs.all_world2pix(*sky_at, 0))
        assert result.template.mask[j, i] & bits("CLIPPED")
        assert result.template.mask[j, i] & bits("INEXACT_PSF")
        left = np.abs(result.template.image - clean.image)[j - 8 : j + 9, i - 8 : i + 9]
        assert left.max() < 0.01 * 2000
        cores = clean.image > 3000
        assert cores.sum() > 100
        assert not (clean.mask[cores] & bits("CLIPPED")).any()

    @pytest.mark.parametrize("peak", [2.0, 3.0, 6.0])
    def test_a_faint_trail_in_one_input_is_rejected(self, make, peak):
        """Of so many times the noise per pixel, which no pixel shows and every detection would."""
        inputs = [make(v, noise=5.0, flux=0.0) for v in (1, 2, 3)]
        rows, columns = np.mgrid[:300, :300]
        across = (0.6 * (columns - 150) - 0.8 * (rows - 150)) / 1.8
        trail = 5.0 * peak * np.exp(-0.5 * across**2)
        crossed = inputs[1].replace(image=(inputs[1].image + trail).astype(np.float32))
        wcs, shape = template.patch(inputs)
        clean = template.run(inputs, wcs, shape)
        result = template.run([inputs[0], crossed, inputs[2]], wcs, shape)
        added = result.template.image - clean.template.image
        inside = np.abs(0.6 * (columns - 150) - 0.8 * (rows - 150)) < 2
        margin = (slice(30, -30), slice(30, -30))
        dy, dx = ((s - 300) // 2 for s in shape)
        there = np.zeros(shape, bool)
        there[dy : dy + 300, dx : dx + 300][margin] = inside[margin]
        share = added[there].mean() / (5.0 * peak / 3.0)
        assert abs(share) < 0.12
        assert clean.inputs["clippedFraction"].to_numpy().max() < 1e-4

    def test_stars_that_vary_or_tremble_keep_all_their_inputs(self, make, stars):
        inputs = [make(v, noise=3.0, sigma=s) for v, s in ((1, 1.7), (2, 1.8), (3, 2.0))]
        varied = inputs[2].replace(
            image=1.4 * inputs[2].image,
            variance=1.96 * inputs[2].variance,
            wcs=sky(shift=(0.1, 0.0)),
        )
        wcs, shape = template.patch(inputs)
        result = template.run([*inputs[:2], varied], wcs, shape)
        assert not result.template.has("CLIPPED").any()
        x, y = wcs.all_world2pix(*stars, 0)
        flux = np.mean(
            [aperture(result.template.image, u, v)[0] for u, v in zip(x, y, strict=True)]
        )
        weights = result.inputs["weight"].to_numpy()
        varying = result.inputs["visit"].to_numpy() == 3
        assert flux == pytest.approx(1e5 * (1.0 + 0.4 * weights[varying][0]), rel=1e-3)

    def test_masked_inputs_are_left_out(self, inputs):
        masked = [e.replace(mask=e.mask.copy(), image=e.image.copy()) for e in inputs]
        masked[0].mask[150, 120:124] = bits("CR")
        masked[0].image[150, 120:124] = 1e6
        wcs, shape = template.patch(inputs)
        coadd = template.run(masked, wcs, shape).template
        assert np.count_nonzero(coadd.mask & bits("REJECTED")) >= 4
        assert not (coadd.mask & bits("CR")).any()

    @pytest.mark.parametrize("plane", sorted(NO_SKY))
    def test_no_plane_that_says_nothing_of_the_sky_enters(self, inputs, plane):
        wrong = [e.replace(mask=e.mask.copy(), image=e.image.copy()) for e in inputs]
        wrong[0].mask[140:160, 90:210] = bits(plane)
        wrong[0].image[148:152, 100:200] = 1e6  # no more than the reach of the warp inside
        wcs, shape = template.patch(inputs)
        clean = template.run(inputs, wcs, shape).template
        coadd = template.run(wrong, wcs, shape, template.Config(suspect_sigma=1e9)).template
        assert np.nanmax(np.abs(coadd.image - clean.image)) < 1e4

    def test_where_all_inputs_are_saturated_so_is_the_template(self, inputs):
        wcs, shape = template.patch(inputs)
        flagged = [e.replace(mask=e.mask.copy()) for e in inputs]
        for e in flagged:
            e.mask[100:200, 100:200] = bits("SAT")
        coadd = template.run(flagged, wcs, shape).template
        v, u = (n // 2 for n in shape)
        middle = np.s_[v - 30 : v + 30, u - 30 : u + 30]
        assert (coadd.mask[middle] & bits("SAT")).all()
        assert not (coadd.mask[middle] & bits("NO_DATA")).any()
        assert np.isfinite(coadd.image[middle]).all()

    def test_two_inputs_are_allowed_and_said(self, inputs):
        wcs, shape = template.patch(inputs[:2])
        assert any("fewer than 3" in n for n in template.run(inputs[:2], wcs, shape).notes)

    def test_soft_inputs_are_left_out_while_three_remain(self, inputs, make):
        soft = make(9, (1.0, 1.0), 0.0, 3.5, noise=5.0)
        wcs, shape = template.patch(inputs)
        result = template.run([*inputs, soft], wcs, shape)
        row = result.inputs.to_pylist()[-1]
        assert row["visit"] == 9
        assert not row["used"]
        assert "FWHM" in row["reason"]
        assert result.notes

    def test_bad_calls(self, inputs):
        wcs, shape = template.patch(inputs)
        with pytest.raises(TemplateError, match="at least one"):
            template.run([], wcs, shape)
        with pytest.raises(TemplateError, match="unit"):
            template.run([inputs[0], inputs[1].replace(unit="electron")], wcs, shape)
        away = sky()
        away.wcs.crval = [10.0, 2.0]
        with pytest.raises(TemplateError, match="no overlap"):
            template.run(inputs, away, (300, 300))


def one_by_one(warper: Warper) -> tuple[np.ndarray, np.ndarray]:
    """Image and variance of the whole output, by the definition of the sums."""
    source = warper.exposure
    ny, nx = warper.shape
    column, row = np.meshgrid(np.arange(nx), np.arange(ny))
    x, y = warper.mapping.at(column, row)
    inside = (x >= 2) & (x <= nx - 4) & (y >= 2) & (y <= ny - 4)
    x, y = np.where(inside, x, 10.0), np.where(inside, y, 10.0)
    ix, iy = x.astype(int), y.astype(int)
    wx, wy = (table()[np.rint((u - i) * 1024).astype(int)] for u, i in ((x, ix), (y, iy)))
    image, variance = np.zeros((2, ny, nx))
    for k in range(6):
        for m in range(6):
            w = (wy[..., k] * wx[..., m]).astype(float)
            image += w * source.image[iy + k - 2, ix + m - 2]
            variance += w**2 * source.variance[iy + k - 2, ix + m - 2]
    return np.where(inside, image, np.nan), np.where(inside, variance, np.nan)


@pytest.mark.parametrize("degrees", [0.0, 0.3, 4.0, 45.0, 90.0])
def test_pixels_made_side_by_side_are_those_made_alone(make, degrees):
    source = make(noise=5.0)
    image = np.array(source.image)
    image[150, 140] = np.nan
    variance = np.linspace(10, 40, image.size, dtype=np.float32).reshape(image.shape)
    target = sky((0.3, 0.6), degrees)
    warper = Warper.to(
        source.replace(image=image, variance=variance), target, (300, 300), template.Config()
    )

    made = warper.band(0, 300)

    # Positions computed in another order may fall on the other side of a step of the table.
    for found, expected in zip(made, one_by_one(warper), strict=False):
        assert np.mean(np.isnan(found) != np.isnan(expected)) < 1e-3
        both = np.isfinite(found) & np.isfinite(expected)
        error = np.abs(found - expected)[both]
        assert np.mean(error > 1e-5 * np.abs(expected[both]).max()) < 1e-3
        assert error.max() < 0.02 * np.nanmax(np.abs(expected))


def test_psf_is_known_where_the_sky_of_the_input_does_not_reach():
    y, x = np.mgrid[0:330:32, 0:330:32].astype(float)
    x[:, 6:] = np.nan
    warped = warped_psf(psf_of(1.8), Mapping(x, y, 32), (300, 300), 64)
    assert np.isfinite(warped.cube).all()
    np.testing.assert_array_equal(warped.cube[:, -1], warped.cube[:, 1])
    assert warped.at(290.0, 150.0).sum() == pytest.approx(1.0, abs=1e-3)
