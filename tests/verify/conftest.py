"""A small workspace, written by the tests themselves: two visits, one detector, a few rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.catalog import Catalog
from harness.verify.context import Context
from harness.workspace import Workspace
from pipeline import io
from pipeline.exposure import Exposure, GridPsf, PhotoCalib, VisitInfo
from pipeline.schema import EXPOSURE, TABLES

_FILL = {"str": "", "bool": False, "time": None}


def row(table: str, **values: Any) -> dict[str, Any]:
    """Fill the required columns that a test does not care about."""
    filled = {c.name: _FILL.get(c.dtype, 0) for c in TABLES[table].columns if not c.nullable}
    return {**filled, **values}


def gaussian_psf(sigma: float = 1.8, side: int = 25) -> GridPsf:
    """A constant Gaussian PSF of unit sum within 12 pixels."""
    yy, xx = np.indices((side, side)) - side // 2
    stamp = np.exp(-0.5 * (xx**2 + yy**2) / sigma**2)
    stamp /= stamp[np.hypot(xx, yy) <= 12].sum()
    return GridPsf(stamp[None, None], np.zeros(1), np.zeros(1))


@pytest.fixture
def exposure() -> Callable[..., Exposure]:
    """Make a blank exposure of white noise with a true variance plane."""

    def make(visit: int = 1, shape: tuple[int, int] = (256, 256), seed: int = 1) -> Exposure:
        rng = np.random.default_rng(seed)
        image = rng.normal(0.0, 4.0, shape).astype(np.float32)
        return Exposure(
            image,
            np.full(shape, 16.0, np.float32),
            np.zeros(shape, np.uint32),
            VisitInfo(visit, 1, "g", 86.0, 57070.2, camera="testcam", field="f"),
            psf=gaussian_psf(),
            photo_calib=PhotoCalib(30.0, 0.01, 0.02, 20, 4.0),
            background=np.full(shape, 1000.0, np.float32),
            unit="nJy",
        )

    return make


@pytest.fixture
def space(tmp_path: Path, exposure: Callable[..., Exposure]) -> Workspace:
    """A workspace with one template and one science visit, products and a catalogue."""
    made = Workspace.create(tmp_path / "camp")
    made.config.write_text(
        '[campaign]\nname = "camp"\nprofile = "tiny"\ncamera = "testcam"\nseed = 1\n'
        '[report]\ntester = "A. Tester"\n'
    )
    visits = [
        {"visit": 1, "band": "g", "field": "f", "exptime": 86.0, "role": "template",
         "startMjdUtc": 57070.0, "midpointMjdTai": 57070.0009, "file": "raw/1.fits.fz"},
        {"visit": 2, "band": "g", "field": "f", "exptime": 86.0, "role": "science",
         "startMjdUtc": 57071.0, "midpointMjdTai": 57071.0009, "file": "raw/2.fits.fz"},
    ]  # fmt: skip
    io.write_parquet(made.exposures, EXPOSURE.from_rows(row("exposure", **v) for v in visits))
    from harness.campaign.frames import frames_table

    frames = [
        {"visit": v, "detector": 1, "kind": "raw", "file": f"raw/{v}.fits.fz"} for v in (1, 2)
    ]
    io.write_parquet(made.frames, frames_table(frames))
    for visit in (1, 2):
        io.write_exposure(made.visit_image(visit, 1), exposure(visit, seed=visit))
    catalog(made)
    return made


def catalog(space: Workspace) -> None:
    """Write the catalogue of the small workspace."""
    from harness.system.hashes import file_hash

    with Catalog(space.catalog) as made, made.transaction():
        for visit in (1, 2):
            for stage in ("isr", "calibrate"):
                made.insert_rows(
                    "unit",
                    [
                        row(
                            "unit",
                            visit=visit,
                            detector=1,
                            stage=stage,
                            status="done",
                            wallS=1.0,
                            cpuS=1.0,
                            peakRssMiB=100.0,
                        )
                    ],
                )
            digest = file_hash(space.visit_image(visit, 1))
            made.insert_rows(
                "visit_image",
                [
                    row(
                        "visit_image",
                        visitImageId=f"{visit}_01",
                        visit=visit,
                        detector=1,
                        sha256=digest,
                        zeroPoint=30.0,
                        zeroPointErr=0.01,
                        nZeroPointStars=20,
                    )
                ],
            )
        made.insert_rows("DiaSource", [source(n) for n in range(10)])
        made.insert_rows(
            "DiaObject",
            [row("DiaObject", diaObjectId=n + 1, ra=10.0 + n, nDiaSources=1) for n in range(10)],
        )


def source(n: int, **values: Any) -> dict[str, Any]:
    """A DiaSource row."""
    usual = {
        "diaSourceId": n + 1, "visit": 2, "detector": 1, "diaObjectId": n + 1, "ra": 10.0 + n,
        "snr": 6.0 + n, "psfFlux": 100.0 + n, "psfFluxErr": 10.0, "isSubThreshold": False,
        "midpointMjdTai": 57071.0009, "band": "g",
    }  # fmt: skip
    return row("DiaSource", **{**usual, **values})


@pytest.fixture
def context(space: Workspace, tmp_path: Path) -> Context:
    """The small workspace as checks see it."""
    return Context(space, evidence_folder=tmp_path / "evidence", jobs=1)
