"""A campaign of artificial fields: Gaussian PSFs, white noise, stars, galaxies' places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS

from harness.execute import Config as Execution
from harness.settings import Campaign, Settings
from harness.workspace import Workspace
from pipeline import diasource, io, schema, subtract
from pipeline.exposure import Exposure, GridPsf, PhotoCalib, VisitInfo
from pipeline.masks import bits

SHAPE = (420, 420)
SKY = 400.0  # electrons, one per nJy


def gaussian_psf(sigma: float, side: int = 41, tilt: float = 0.0) -> GridPsf:
    """A Gaussian whose width grows by `tilt` pixels from the lowest to the highest row."""
    nodes = np.linspace(0.0, SHAPE[0], 9) if tilt else np.array([210.0])
    v, u = np.mgrid[:side, :side] - side // 2
    widths = (sigma + tilt * (nodes / SHAPE[0] - 0.5))[:, None, None]
    stamps = np.exp(-0.5 * (u**2 + v**2) / widths**2)
    stamps /= stamps.sum((1, 2), keepdims=True)
    return GridPsf(stamps[:, None], np.array([210.0]), nodes)


def _wcs() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (155.0, -6.5), (210.0, 210.0)
    wcs.wcs.cd = np.array([[0.0, 1.0], [-1.0, 0.0]]) * 0.2626 / 3600
    wcs.pixel_shape = SHAPE[::-1]
    return wcs


def _field(seed: int, sigma: float, inputs: int, visit: int, tilt: float = 0.0) -> Exposure:
    """Stars at the same places in every image, with their photon noise."""
    places = np.random.default_rng(3)
    x, y = places.uniform(15, SHAPE[1] - 15, (2, 60))
    flux = 10 ** places.uniform(3.6, 5.2, 60)
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = np.zeros(SHAPE)
    for a, b, f in zip(x, y, flux, strict=True):
        width = sigma + tilt * (b / SHAPE[0] - 0.5)
        light += (
            f * np.exp(-0.5 * ((u - a) ** 2 + (v - b) ** 2) / width**2) / (2 * np.pi * width**2)
        )
    variance = ((light + SKY) / inputs).astype(np.float32)
    noise = np.random.default_rng(seed).normal(size=SHAPE) * np.sqrt(variance)
    mask = np.zeros(SHAPE, np.uint32)
    if visit:
        mask[:, 300:302] = bits("BAD")
    return Exposure(
        (light + noise).astype(np.float32),
        variance,
        mask,
        VisitInfo(visit, 2, "g", 86.0, 57071.0 + visit / 100, camera="generic"),
        wcs=_wcs(),
        psf=gaussian_psf(sigma, tilt=tilt),
        photo_calib=PhotoCalib(zero_point=31.4, njy_per_electron=1.0),
        unit="nJy",
        provenance={"TMPLID": "T", "NTMPLIN": inputs} if not visit else {},
    )


def build(root: Path, visits: int = 2, tilt: float = 0.0) -> Workspace:
    """Write the products that a study reads; `tilt` is that of the visits' PSF."""
    space = Workspace.create(root)
    Settings(campaign=Campaign(camera="generic"), execution=Execution(executor="serial")).save(
        space.config
    )
    template = _field(100, 1.7, 8, 0)
    io.write_exposure(space.template("T"), template)
    rng = np.random.default_rng(8)
    ra, dec = _wcs().all_pix2world(*rng.uniform(20, 400, (2, 60)), 0)
    objects = {
        "objectId": np.arange(60) + 1,
        "ra": ra,
        "dec": dec,
        "gFlux": 10 ** rng.uniform(3, 5, 60),
    }
    objects |= {"objectType": ["galaxy"] * 60, "radius": rng.uniform(0.3, 1.0, 60)}
    io.write_parquet(space.objects, schema.OBJECT.to_arrow(objects))
    for visit in range(1, visits + 1):
        science = _field(visit, 1.8, 1, visit, tilt)
        difference = subtract.run(science, template)
        found = diasource.run(difference, science, template)
        cards = {"TMPLID": "T"}
        io.write_exposure(space.visit_image(visit, 2), science)
        written = type(difference)(
            difference.exposure.replace(provenance=cards),
            difference.score,
            difference.null_variance,
            difference.kernel,
            difference.metrics,
            found.excluded,
        )
        io.write_difference(space.difference(visit, 2), written)
        io.write_parquet(space.staging("DiaSource", visit, 2), found.sources)
    return space


@pytest.fixture(scope="session")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two visits of one field; studies are the only thing to be written there."""
    return build(tmp_path_factory.mktemp("study") / "fields")
