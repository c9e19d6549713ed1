"""Forced photometry: right fluxes, right rows, right flags."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from pipeline import diaobject
from pipeline.exposure import Difference, Exposure, GridPsf, MatchingKernel, VisitInfo
from pipeline.ids import unpack
from pipeline.masks import bits
from pipeline.pixelflags import PIXEL_FLAGS
from pipeline.schema import DIA_OBJECT, to_numpy

T0 = 57071.25
SHAPE = (400, 420)
NOISE = 5.0


def psf() -> GridPsf:
    u = np.arange(31) - 15
    stamp = np.exp(-0.5 * (u[:, None] ** 2 + u**2) / 1.9**2)
    return GridPsf((stamp / stamp.sum())[None, None], np.zeros(1), np.zeros(1))


def images(
    x: np.ndarray, y: np.ndarray, flux: np.ndarray, seed: int
) -> tuple[Difference, Exposure]:
    """Gaussian sources of the given fluxes on the difference, thrice as bright on the science."""
    rng = np.random.default_rng(seed)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, 2], [200, 200]
    wcs.wcs.cd = np.diag([-0.263, 0.263]) / 3600
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    clean = np.zeros(SHAPE)
    for a, b, f in zip(x, y, flux, strict=True):
        clean += f * np.exp(-0.5 * ((u - a) ** 2 + (v - b) ** 2) / 1.9**2) / (2 * np.pi * 1.9**2)
    info = VisitInfo(410_500, 25, "g", 86.0, T0)
    mask = np.zeros(SHAPE, np.uint32)
    mask[100, 60] = bits("CR")
    variance = np.full(SHAPE, NOISE**2, np.float32)

    def made(image: np.ndarray) -> Exposure:
        pixels = (image + rng.normal(0, NOISE, SHAPE)).astype(np.float32)
        return Exposure(pixels, variance, mask, info, wcs, psf(), unit="nJy")

    kernel = MatchingKernel(
        np.ones((1, 1, 1)), np.ones((1, 1)), 0, SHAPE, np.zeros(1), 1.0, np.zeros((0, 4))
    )
    return Difference(made(clean), np.zeros(SHAPE, np.float32), variance, kernel), made(3 * clean)


def objects_at(x: np.ndarray, y: np.ndarray, wcs: WCS, first: np.ndarray) -> DIA_OBJECT:
    ra, dec = wcs.all_pix2world(x, y, 0)
    n = len(x)
    counts = {f"{b}_psfFluxNdata": np.zeros(n, int) for b in "ugrizy"}
    return DIA_OBJECT.to_arrow(
        {"diaObjectId": np.arange(n) + 10, "ra": ra, "dec": dec, "firstDiaSourceMjdTai": first}
        | counts,
        validityStartMjdTai=T0, nDiaSources=1,
    )  # fmt: skip


def test_pulls_flags_and_rows() -> None:
    grid = np.stack(np.meshgrid(np.arange(20, 400, 40), np.arange(20, 400, 40))).reshape(2, -1)
    rng = np.random.default_rng(1)
    x, y = grid + rng.uniform(-0.5, 0.5, grid.shape)
    flux = rng.normal(0, 1500.0, len(x))
    difference, science = images(x, y, flux, 2)
    table = objects_at(x, y, difference.exposure.wcs, np.full(len(x), T0 - 1))
    forced = diaobject.force(table, difference, science, processed_mjd_tai=T0)
    assert forced.num_rows == len(x)
    for name, true in (("psfFlux", flux), ("scienceFlux", 3 * flux)):
        pull = (to_numpy(forced, name) - true) / to_numpy(forced, f"{name}Err")
        assert np.std(pull) == pytest.approx(1.0, abs=0.2)
        assert abs(np.mean(pull)) < 0.35
    limits = to_numpy(forced, "isUpperLimit")
    significance = np.abs(to_numpy(forced, "psfFlux")) / to_numpy(forced, "psfFluxErr")
    assert np.array_equal(limits, significance < 3)
    faded = (flux < -1000) & (significance > 5)  # a measurement
    assert faded.sum() > 5
    assert not limits[faded].any()
    near = np.hypot(x - 60, y - 100) < 2
    assert np.array_equal(to_numpy(forced, "pixelFlags_cr"), near)
    assert not to_numpy(forced, "isPrecovery").any()
    assert [unpack(i) for i in to_numpy(forced, "diaForcedSourceId")[:2]] == [
        (410_500, 25, 0), (410_500, 25, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("flag", PIXEL_FLAGS)
def test_flags_mean_what_they_mean_for_sources(flag: str) -> None:
    x = y = np.array([100.0, 150.0])
    difference, science = images(x, y, np.full(2, 500.0), 3)
    for plane in PIXEL_FLAGS[flag]:
        difference.exposure.mask[101, 99] = bits(plane)
        forced = diaobject.force(
            objects_at(x, y, science.wcs, np.full(2, T0)), difference, science, processed_mjd_tai=T0
        )
        raised = {
            c for c in forced.column_names if c.startswith("pixelFlags") and forced[c][0].as_py()
        }
        expected = {f for f, planes in PIXEL_FLAGS.items() if plane in planes}
        known = {c for c in forced.column_names if c.startswith("pixelFlags")}
        assert raised == {f"pixelFlags_{f}" for f in expected} & known
        assert not any(forced[c][1].as_py() for c in known)


def test_precovery_reaches_back_thirty_days_and_no_further() -> None:
    x = y = np.array([100.0, 150.0, 200.0, 250.0])
    difference, science = images(x, y, np.full(4, 500.0), 3)
    first = T0 + np.array([-1.0, 0.0, 29.9, 30.1])
    table = objects_at(x, y, difference.exposure.wcs, first)
    forced = diaobject.force(table, difference, science, processed_mjd_tai=T0, first_counter=7)
    assert to_numpy(forced, "diaObjectId").tolist() == [10, 11, 12]
    assert to_numpy(forced, "isPrecovery").tolist() == [False, False, True]
    assert unpack(to_numpy(forced, "diaForcedSourceId")[0])[2] == 7


def test_objects_off_the_image_give_no_rows() -> None:
    x, y = np.array([-30.0, 5.0, 900.0]), np.array([50.0, 60.0, 50.0])
    difference, science = images(x[:0], y[:0], x[:0], 4)
    table = objects_at(x, y, difference.exposure.wcs, np.full(3, T0))
    forced = diaobject.force(table, difference, science, processed_mjd_tai=T0)
    assert to_numpy(forced, "diaObjectId").tolist() == [11]
    assert to_numpy(forced, "psfFlux_flag_edge").tolist() == [True]
    empty = diaobject.force(table.slice(0, 0), difference, science, processed_mjd_tai=T0)
    assert empty.num_rows == 0


def test_forced_means_enter_the_objects() -> None:
    x = y = np.array([100.0, 150.0])
    difference, science = images(x, y, np.full(2, 5000.0), 5)
    table = objects_at(x, y, difference.exposure.wcs, np.full(2, T0))
    forced = diaobject.force(table, difference, science, processed_mjd_tai=T0)
    updated = diaobject.with_forced(table, forced)
    assert updated["g_fpFluxMean"].to_pylist() == pytest.approx(to_numpy(forced, "psfFlux"))
    assert updated["g_fpFluxNdata"].to_pylist() == [1, 1]
    assert updated["g_fpFluxSigma"].null_count == 2
    assert updated["r_fpFluxMean"].null_count == 2
    assert updated["r_fpFluxNdata"].to_pylist() == [0, 0]
