"""The share of their flux that constant stars leave in a difference."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from pipeline.diasource.leftover import flux_share
from pipeline.diasource.planes import Planes
from pipeline.psfphot import SplinePsf


@pytest.mark.parametrize("share", [0.0, 0.005, 0.02])
def test_the_share_is_what_was_left(lab: ModuleType, share: float) -> None:
    rng = np.random.default_rng(8401)
    star, shape = lab.Star(), (640, 640)
    left, variance = lab.blank(shape, rng)
    template, more = lab.blank(shape, rng)
    at = lab.grid(shape, 42, rng)
    flux = lab.log_uniform(200.0, 2000.0, len(at), rng) * star.sigma_flux()
    lab.add(template, more, star, at, flux, rng)
    for (x, y), f in zip(at, flux * rng.normal(0.0, share, len(at)), strict=True):
        ix, iy, h = round(x), round(y), lab.SIDE // 2
        box = np.s_[iy - h : iy + h + 1, ix - h : ix + h + 1]
        left[box] += star.stamp(x - ix, y - iy) * f / star.norm()
    left[300:320, 300:320] += 500.0  # something that varies
    mask, null = np.zeros(shape, np.uint32), np.full(shape, lab.SKY, np.float32)
    planes = Planes.of(
        left.astype(np.float32), variance.astype(np.float32), null, mask, np.uint32(1)
    )
    psf = SplinePsf.of(star.psf())

    found = flux_share(planes, psf, lab.exposure(template, more, star), at, 0.004)

    assert found == pytest.approx(share, rel=0.2, abs=1e-3)
    assert flux_share(planes, psf, lab.exposure(template, more, star), at[:5], 0.004) == 0.004
