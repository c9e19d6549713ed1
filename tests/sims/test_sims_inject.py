"""Injection into calibrated images: designs, photometry, noise, masks, reasons."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS

from pipeline import schema
from pipeline.exposure import Exposure, GridPsf, PhotoCalib, VisitInfo
from pipeline.masks import bits
from pipeline.schema import to_numpy
from sims import inject

NJY = 2.5
SKY = 400.0
SIDE = 400


def gaussian_psf(sigma: float = 1.8, side: int = 25) -> GridPsf:
    v, u = np.mgrid[:side, :side] - side // 2
    stamp = np.exp(-0.5 * (u**2 + v**2) / sigma**2)
    stamp /= stamp[np.hypot(u, v) <= 12].sum()
    return GridPsf(stamp[None, None], np.array([200.0]), np.array([200.0]))


def exposure(noise: bool = False) -> Exposure:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (155.0, -6.5), (200.0, 200.0)
    wcs.wcs.cd = np.array([[0.0, 1.0], [-1.0, 0.0]]) * 0.2626 / 3600
    variance = np.full((SIDE, SIDE), SKY * NJY**2, np.float32)
    image = np.zeros((SIDE, SIDE), np.float32)
    if noise:
        draws = np.random.default_rng(1).normal(0, np.sqrt(SKY) * NJY, image.shape)
        image += draws.astype(np.float32)
    mask = np.zeros(image.shape, np.uint32)
    mask[:, :30] = bits("NO_DATA")
    return Exposure(
        image,
        variance,
        mask,
        VisitInfo(1, 2, "g", 86.0, 57071.0),
        wcs=wcs,
        psf=gaussian_psf(),
        photo_calib=PhotoCalib(zero_point=30.4, njy_per_electron=NJY),
        unit="nJy",
    )


def objects(image: Exposure, n: int = 80):
    rng = np.random.default_rng(5)
    x, y = rng.uniform(40, 360, (2, n))
    ra, dec = image.wcs.all_pix2world(x, y, 0)
    columns = {"objectId": np.arange(n) + 1, "ra": ra, "dec": dec}
    columns["objectType"] = ["galaxy" if k % 4 else "star" for k in range(n)]
    columns["radius"] = np.where(np.arange(n) % 4, rng.uniform(0.3, 2.0, n), 0.0)
    columns["gFlux"] = 10 ** rng.uniform(2.5, 5.5, n)
    return schema.OBJECT.to_arrow(columns)


def test_designs_are_even_in_every_stratum() -> None:
    image = exposure()
    design = inject.Design(n=60, snr=(5.0, 50.0), hosted=0.5)
    table = inject.draw(design, image, objects(image), seed=1, study="s")
    assert table.schema.equals(schema.INJECTION.arrow_schema)
    snr = np.abs(to_numpy(table, "trueSnr"))
    parts = np.histogram(np.log(snr), np.linspace(np.log(5), np.log(50), 7))[0]
    np.testing.assert_array_equal(parts, 10)
    kinds = table["kind"].to_pylist()
    assert kinds.count("template_only") == 6
    assert kinds.count("trail") == 6
    negative = to_numpy(table, "flux") < 0
    np.testing.assert_array_equal(negative, np.array(kinds) == "template_only")
    hosted = np.isfinite(to_numpy(table, "hostOffset"))
    assert hosted.sum() == 30
    assert (to_numpy(table, "hostSurfaceBrightness")[hosted] > 0).all()
    again = inject.draw(design, image, objects(image), seed=1, study="s")
    assert table.equals(again)


def test_a_design_says_when_hosts_run_out() -> None:
    image = exposure()
    table = inject.draw(
        inject.Design(n=40, hosted=1.0), image, objects(image, 20), seed=1, study="s"
    )
    placed = to_numpy(table, "placed")
    assert 0 < placed.sum() < 16
    assert {r for r in table["reason"].to_pylist() if r} == {"no_host"}


def test_flux_is_snr_times_the_noise_of_a_psf_flux() -> None:
    image = exposure()
    power = (image.psf.at(0, 0) ** 2).sum()
    sigma = inject.null_sigma(image, np.array([100.0, 300.0]), np.array([50.0, 60.0]))
    np.testing.assert_allclose(sigma, np.sqrt(SKY / power) * NJY, rtol=1e-6)


def test_painted_sources_have_their_flux_place_and_noise() -> None:
    image = exposure()
    n = 300
    rng = np.random.default_rng(7)
    x, y = rng.uniform(45, 370, (2, n))
    table = catalogue(image, x, y, flux=2.0e5)
    shifts, fluxes = [], []
    v, u = np.mgrid[-12:13, -12:13]
    for k in range(n):
        one = table.slice(k, 1)
        painted, answer = inject.paint(image, one, seed=3)
        assert answer["placed"][0].as_py()
        cx, cy = round(x[k]), round(y[k])
        box = painted.image[cy - 12 : cy + 13, cx - 12 : cx + 13].astype(float)
        fluxes.append(box.sum())
        shifts.append(
            [(box * u).sum() / box.sum() + cx - x[k], (box * v).sum() / box.sum() + cy - y[k]]
        )
    electrons = 2.0e5 / NJY
    pull = (np.array(fluxes) / NJY - electrons) / np.sqrt(electrons)
    assert abs(pull.mean()) < 4 / np.sqrt(n)
    assert pull.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * n))
    expected = 1.8 / np.sqrt(electrons)
    assert np.array(shifts).std() == pytest.approx(expected, rel=0.15)
    assert np.abs(np.array(shifts).mean(axis=0)).max() < 4 * expected / np.sqrt(n)


def catalogue(image: Exposure, x, y, *, flux: float, kind: str = "point", **more):
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    ra, dec = image.wcs.all_pix2world(x, y, 0)
    columns = {"injectionId": np.arange(len(x)), "ra": ra, "dec": dec, "x": x, "y": y}
    columns |= {k: np.full(len(x), v) for k, v in more.items()}
    columns["flux"] = np.full(len(x), flux)
    columns["placed"] = np.ones(len(x), bool)
    return schema.INJECTION.to_arrow(columns, studyId="s", visit=1, detector=2, kind=kind, seed=1)


def test_variance_and_mask_know_of_the_source() -> None:
    image = exposure()
    painted, _ = inject.paint(image, catalogue(image, 200.0, 150.0, flux=1e5), seed=1)
    added = painted.variance - image.variance
    assert added.sum() == pytest.approx(1e5 * NJY, rel=1e-3)
    touched = painted.has("INJECTED")
    assert touched[150, 200]
    assert 50 < touched.sum() < 900
    assert 4 <= painted.has("INJECTED_CORE").sum() <= 9
    assert not image.has("INJECTED").any()
    np.testing.assert_array_equal(painted.image[~touched & (added == 0)], 0.0)


def test_trails_lie_along_their_bearing() -> None:
    image = exposure()
    table = catalogue(image, 200.0, 200.0, flux=1e6, kind="trail", trailLength=6.0, trailAngle=90.0)
    painted, _ = inject.paint(image, table, seed=1)
    v, u = np.mgrid[:SIDE, :SIDE] - 200.0
    weight = painted.image / painted.image.sum()
    along, across = (weight * v**2).sum(), (weight * u**2).sum()  # east is up
    length = 6.0 / 0.2626
    assert along - across == pytest.approx(length**2 / 12, rel=0.03)


def test_every_refusal_has_a_reason() -> None:
    image = exposure()
    table = catalogue(image, [-50.0, 10.0, 200.0], [200.0, 200.0, 200.0], flux=1e4)
    _, answer = inject.paint(image, table, seed=1)
    assert answer["reason"].to_pylist() == ["off_image", "no_data", None]
    _, answer = inject.paint(image.replace(psf=None), table.slice(2), seed=1)
    assert answer["reason"].to_pylist() == ["no_psf"]
    ghost = catalogue(image, 200.0, 200.0, flux=-1e4, kind="template_only")
    science, answer = inject.paint(image, ghost, seed=1)
    assert answer["reason"].to_pylist() == ["other_image"]
    assert science.image.sum() == 0.0
    template, answer = inject.paint(image, ghost, seed=1, template=True)
    assert answer["placed"].to_pylist() == [True]
    assert template.image.sum() > 9e3


def test_instrumental_images_are_painted_in_electrons() -> None:
    image = exposure().replace(photo_calib=None, unit="electron")
    painted, _ = inject.paint(image, catalogue(image, 200.0, 200.0, flux=1e4), seed=1)
    assert painted.image.sum() == pytest.approx(1e4, abs=500)
    np.testing.assert_array_equal(painted.image, np.rint(painted.image))
