"""Second moments measured once more, by GalSim's adaptive moments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from harness.verify.metric import Sample, metric
from harness.verify.metrics.remeasured import clean_sources, median_of
from harness.verify.view import View, remember
from pipeline.wcs import pixel_scale

__all__: list[str] = []

FloatArray = npt.NDArray[np.float64]
_HALF = 20
_GUESS = 2.0


@metric(
    "moments_remeasured", unit="", product="difference", reads=("difference", "sources"),
    reduce="pooled",
)  # fmt: skip
def moments_remeasured(
    view: View,
    of: Literal["source", "psf"] = "source",
    value: Literal["size", "shape"] = "size",
    snr_min: float = 20.0,
) -> Sample:
    """Second moments of clean sources, or of the PSF there, against adaptive moments, median.

    Of the size ixx + iyy the ratio, less one; of the shape the distance between the ellipticities
    (ixx − iyy, 2 ixy) / (ixx + iyy).  Adaptive moments are those of Hirata & Seljak 2003, MNRAS
    343, 459, as GalSim takes them of the same pixels.
    """
    suffix = "PSF" if of == "psf" else ""
    rows, own = remember(view, f"moments of {of}", lambda: _moments(view, of, snr_min))
    xx, xy, yy = (rows[f"i{name}{suffix}"] for name in ("xx", "xy", "yy"))
    if value == "size":
        return median_of((xx + yy) / own[:, 0] - 1.0)
    e1, e2 = (xx - yy) / (xx + yy), 2.0 * xy / (xx + yy)
    return median_of(np.hypot(e1 - own[:, 1], e2 - own[:, 2]))


def _moments(view: View, of: str, snr_min: float) -> tuple[Mapping[str, Any], FloatArray]:
    """Rows of the bright clean sources with size, arcsec², and ellipticity of their pixels."""
    wcs = view.difference.exposure.wcs
    assert wcs is not None
    s = clean_sources(view)
    bright = (np.abs(s["snr"]) > snr_min) & ~s["shape_flag"]
    rows = {name: column[bright] for name, column in s.items()}
    stamps = _psfs(view, rows) if of == "psf" else _images(view, rows)
    found = np.array([_adaptive(stamp) for stamp in stamps]).reshape(-1, 3)
    found[:, 0] *= (3600.0 * pixel_scale(wcs)) ** 2
    return rows, found


def _psfs(view: View, rows: Mapping[str, Any]) -> Iterator[FloatArray]:
    """Point spread functions at the sources."""
    psf = view.difference.exposure.psf
    assert psf is not None
    yield from (psf.stamps(rows["x"], rows["y"]) if len(rows["x"]) else ())


def _images(view: View, rows: Mapping[str, Any]) -> Iterator[FloatArray]:
    """Positive light of the sources; of those near an edge what there is."""
    image = np.pad(view.difference.exposure.image, _HALF, constant_values=np.nan)
    for x, y, flux in zip(rows["x"], rows["y"], rows["psfFlux"], strict=True):
        i, j = round(float(x)), round(float(y))
        yield np.sign(flux) * image[j : j + 2 * _HALF + 1, i : i + 2 * _HALF + 1].astype(float)


def _adaptive(stamp: FloatArray) -> tuple[float, float, float]:
    """Size in pixel² and ellipticity, NaN where pixels are unknown or the moments run away."""
    import galsim

    if not np.isfinite(stamp).all():
        return np.nan, np.nan, np.nan
    found = galsim.hsm.FindAdaptiveMom(galsim.Image(stamp), guess_sig=_GUESS, strict=False)
    if found.moments_status:
        return np.nan, np.nan, np.nan
    e1, e2 = found.observed_shape.e1, found.observed_shape.e2
    return 2.0 * found.moments_sigma**2 / np.sqrt(1.0 - e1**2 - e2**2), e1, e2
