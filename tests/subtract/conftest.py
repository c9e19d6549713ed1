"""Small pairs of images with known answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.exposure import Exposure, GridPsf, VisitInfo


def gaussian(sigma: float, half: int = 20) -> npt.NDArray[np.float64]:
    u = np.arange(-half, half + 1)
    line = np.exp(-0.5 * (u / sigma) ** 2)
    stamp = np.outer(line, line)
    return stamp / stamp.sum()


def draw(
    shape: tuple[int, int], x: Any, y: Any, flux: Any, sigma: float
) -> npt.NDArray[np.float64]:
    """Stars as sampled Gaussians, exact to rounding."""
    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    norm = 1 / (2 * np.pi * sigma**2)
    along_y = np.exp(-0.5 * ((rows[:, None] - np.asarray(y)) / sigma) ** 2)
    along_x = np.exp(-0.5 * ((columns[:, None] - np.asarray(x)) / sigma) ** 2)
    return (along_y * np.asarray(flux) * norm) @ along_x.T


@dataclass
class Scene:
    science: Exposure
    template: Exposure
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    flux: npt.NDArray[np.float64]


def exposure(
    image: npt.NDArray[np.float64], variance: npt.NDArray[np.float64], sigma: float, **more: Any
) -> Exposure:
    psf = GridPsf(gaussian(sigma)[None, None], np.zeros(1), np.zeros(1))
    info = VisitInfo(visit=1, detector=1, band="g", exptime=60.0, midpoint_mjd_tai=57000.0)
    return Exposure(
        image=image.astype(np.float32),
        variance=variance.astype(np.float32),
        mask=np.zeros(image.shape, np.uint32),
        info=info,
        psf=psf,
        unit="nJy",
        **more,
    )


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., Scene]:
    """Stars in two images, the template off by `offset`; `transients` are in the science alone."""

    def make(
        *,
        seed: int = 1,
        shape: tuple[int, int] = (512, 512),
        stars: int = 90,
        transients: int = 0,
        science_sigma: float = 2.0,
        template_sigma: float = 1.6,
        noise: tuple[float, float] = (10.0, 5.0),
        ratio: float = 0.8,
        offset: tuple[float, float] = (0.0, 0.0),
        smooth: npt.NDArray[np.float64] | None = None,
    ) -> Scene:
        rng = np.random.default_rng(seed)
        x, y = rng.uniform(5, shape[1] - 5, stars), rng.uniform(5, shape[0] - 5, stars)
        flux = 10 ** rng.uniform(4.0, 5.3, stars)
        u, v = (
            rng.uniform(40, shape[1] - 40, transients),
            rng.uniform(40, shape[0] - 40, transients),
        )
        new = np.full(transients, 3000.0)
        static = draw(shape, x, y, ratio * flux, science_sigma)
        changed = draw(shape, u, v, new, science_sigma)
        deep = draw(shape, x + offset[0], y + offset[1], flux, template_sigma)
        variances = noise[0] ** 2 + static + changed, noise[1] ** 2 + 0.2 * deep
        white = rng.normal(size=(2, *shape))
        if smooth is not None:
            white[1] = np.real(
                np.fft.ifft2(np.fft.fft2(white[1]) * np.fft.fft2(smooth, shape))
            ) / np.sqrt((smooth**2).sum())
        science = static + changed + 7.0 + white[0] * np.sqrt(variances[0])
        template = deep + white[1] * np.sqrt(variances[1])
        return Scene(
            exposure(science, variances[0], science_sigma),
            exposure(template, variances[1], template_sigma),
            u,
            v,
            new,
        )

    return make
