"""What can be chosen when two images are subtracted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from pipeline.config import StageConfig, param

__all__ = ["ALGORITHMS", "Config"]

ALGORITHMS: dict[str, str] = {
    "alard_lupton": "pipeline.subtract.alard_lupton",
    "zogy": "pipeline.subtract.zogy",
}
"""Modules of the algorithms, by name; each has a function ``subtract``, a `Subtractor`."""


def _known(name: str) -> str:
    """Refuse the name of an algorithm that does not exist."""
    if name not in ALGORITHMS:
        raise ValueError(f"no such algorithm, only {', '.join(ALGORITHMS)}")
    return name


class Config(StageConfig):
    """Configuration of PSF matching, decorrelation and the score."""

    algorithm: Annotated[str, AfterValidator(_known)] = param(
        "alard_lupton", f"How images are subtracted: {', '.join(ALGORITHMS)}"
    )
    convolve: Literal["auto", "template", "science"] = param(
        "auto", "Which image is convolved; auto takes the sharper one"
    )
    kernel_half: int = param(14, "Half width of the matching kernel", unit="pixel", ge=3, le=20)
    sigmas: tuple[float, ...] = param(
        (0.7, 1.7, 4.0), "Widths of the kernel's Gaussians", unit="pixel"
    )
    degrees: tuple[int, ...] = param((4, 3, 2), "Degrees of the polynomials on the Gaussians")
    order: int = param(2, "Largest spatial degree of the kernel", ge=0, le=2)
    stamps_order_1: int = param(15, "Stamps that a linear variation needs", ge=3)
    stamps_order_2: int = param(60, "Stamps that a quadratic variation needs", ge=3)
    ratio_order: int = param(
        2, "Largest spatial degree of the photometric ratio, if held-out stamps want it", ge=0, le=2
    )
    background_order: int = param(2, "Largest degree of the differential background", ge=0, le=2)
    max_stamps: int = param(220, "Stamps used at most", ge=3)
    stamp_half: int = param(16, "Half width of the fitted part of a stamp", unit="pixel", ge=5)
    stamp_cell: int = param(256, "Stamps are spread over cells of this size", unit="pixel", ge=32)
    stamp_snr: float = param(15.0, "Smallest peak signal to noise of a stamp", gt=0)
    clip_sigma: float = param(4.0, "Stamps fitting worse than this are dropped", gt=0)
    model_error: float = param(0.004, "Error of the matched model as a share of the signal", ge=0)
    ridge: float = param(1e-8, "Stabilises the fit, relative to the mean diagonal", ge=0)
    tile: int = param(256, "Core of the tiles that are convolved at a time", unit="pixel", ge=64)
    decorrelate: bool = param(True, "Whiten the noise of the difference")
    scene_noise: bool = param(
        True,
        "Count what constant stars leave, dipoles and rings, as noise of the score: ten times "
        "fewer false detections; faint changes on bright stars or beside saturated ones are hidden",
    )
    dilation_share: float = param(
        0.02, "A pixel is masked when masked pixels carry this share of the kernel", gt=0, lt=1
    )
