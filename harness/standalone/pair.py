"""A science image and a template on the same pixels, with everything the stages need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from harness.standalone.estimate import (
    gain_of,
    mask_of,
    number,
    psf_of,
    saturation_of,
    variance_of,
)
from harness.standalone.read import Planes, Raw, read_planes
from pipeline import io
from pipeline import wcs as world
from pipeline.errors import InputError, PixelError
from pipeline.exposure import Exposure, VisitInfo

__all__ = ["Pair", "Planes", "load_pair"]

_SAME_PIXELS = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two exposures on one grid.

    Attributes
    ----------
    science, template : Exposure
        In the flux unit of their files; the science image has a PSF, the template only if it came
        with one or `with_template_psf` has made it.
    has_wcs : bool
        Whether the science image came with sky coordinates.
    warped : bool
        Whether the template had to be resampled.
    estimated : tuple of bool
        Whether the variance of the science image, and that of the template, had to be estimated.
    notes : tuple of str
        What was estimated or assumed.
    planes : tuple of Planes
        Where the two images came from.
    files : tuple of tuple of path
        Every file that was read, of the science image and of the template.
    """

    science: Exposure
    template: Exposure
    has_wcs: bool
    warped: bool
    estimated: tuple[bool, bool]
    notes: tuple[str, ...]
    planes: tuple[Planes, Planes]
    files: tuple[tuple[Path, ...], tuple[Path, ...]]

    def with_template_psf(self) -> Pair:
        """Model the PSF of the template as well.

        What is detected is measured with it, and a kernel that has too few sources is made of it;
        a subtraction does without.

        Raises
        ------
        PsfError
            If the template has no star.
        """
        notes = list(self.notes)
        template = _with_psf(self.template, "template", notes)
        return replace(self, template=template, notes=tuple(notes))

    def with_sky_variance(self, factor: float) -> Pair:
        """Scale the sky's part of the variances that had to be estimated, and say so.

        Parameters
        ----------
        factor : float
            New variance of the sky over the old one; the photon noise of sources stays.
        """
        first, second = (
            _scaled(e, factor) if estimated else e
            for e, estimated in zip((self.science, self.template), self.estimated, strict=True)
        )
        note = f"estimated sky noise corrected by the difference, times {factor**0.5:.3f}"
        return replace(self, science=first, template=second, notes=(*self.notes, note))


def load_pair(science: Planes, template: Planes, *, registered: bool = False) -> Pair:
    """Read two images and fill in what they lack.

    Parameters
    ----------
    science, template : Planes
        The files.
    registered : bool
        Trust that the images are on the same pixels whatever their headers say.

    Returns
    -------
    Pair
        Ready for `pipeline.subtract.run`.

    Raises
    ------
    InputError
        If a file is unusable, or the images are on different pixels and one has no coordinates.
    TemplateError
        If the images do not overlap on the sky.
    PixelError
        If an image is constant or has no usable pixel.
    PsfError
        If the science image has no star.
    """
    notes: list[str] = []
    first, first_files, first_estimated = _exposure(science, "science", notes)
    second, second_files, second_estimated = _exposure(template, "template", notes)
    _refuse_useless(first, "science")
    _refuse_useless(second, "template")
    has_wcs = first.wcs is not None
    warped = not registered and not _on_same_pixels(first, second, science, template, notes)
    if warped:
        from pipeline import template as templates

        assert first.wcs is not None
        second = templates.warp(second, first.wcs, first.shape)
        notes.append("template resampled onto the pixels of the science image")
    first = _with_psf(first, "science", notes)
    if first.wcs is None:
        first = first.replace(wcs=_pixel_wcs())
    return Pair(
        first,
        second,
        has_wcs,
        warped,
        (first_estimated, second_estimated),
        tuple(notes),
        (science, template),
        (first_files, second_files),
    )


def _scaled(exposure: Exposure, factor: float) -> Exposure:
    from pipeline.psfphot import smooth_variance

    scale = np.float32(factor)
    sky = smooth_variance(exposure.variance, exposure.mask)
    # In a crowded field what looks like the sky's part has some of the sources in it.
    variance = np.maximum(exposure.variance + (scale - 1) * sky, scale * exposure.variance)
    return exposure.replace(variance=variance)


def _exposure(
    planes: Planes, name: str, notes: list[str]
) -> tuple[Exposure, tuple[Path, ...], bool]:
    """Read one image; returns it, its files, and whether its variance had to be estimated.

    What had to be assumed goes to the notes under its name.
    """
    if _is_product(planes.path):
        return io.read_exposure(planes.path), (planes.path,), False
    raw = read_planes(planes)
    own: list[str] = []
    gain = gain_of(planes, raw, own) if raw.variance is None else planes.gain
    saturation = saturation_of(planes, raw)
    mask = mask_of(raw, saturation, own)
    variance = variance_of(planes, raw, mask, gain, own)
    notes += [f"{name}: {note}" for note in own]
    exposure = Exposure(
        image=raw.image,
        variance=variance,
        mask=mask,
        info=_info(raw, gain, saturation),
        wcs=_wcs(raw),
        unit=_unit(raw),
    )
    return exposure, raw.files, raw.variance is None


def _refuse_useless(exposure: Exposure, name: str) -> None:
    """Say which image is at fault before anything is made of it."""
    thin = np.s_[::16, ::16]  # most images show here that they are sound
    sample = exposure.image[thin][(exposure.mask[thin] == 0) & (exposure.variance[thin] > 0)]
    sample = sample[np.isfinite(sample)]
    if sample.size and sample.min() < sample.max():
        return
    values = exposure.image[(exposure.mask == 0) & (exposure.variance > 0)]
    values = values[np.isfinite(values)]
    if not values.size:
        raise PixelError(f"the {name} has no usable pixels", usable=0, of=int(exposure.image.size))
    if values.min() == values.max():
        raise PixelError(f"the {name} is constant", value=float(values[0]))


def _with_psf(exposure: Exposure, name: str, notes: list[str]) -> Exposure:
    if exposure.psf is not None:
        return exposure
    found: list[str] = []
    exposure = exposure.replace(psf=psf_of(exposure, found))
    notes += [f"{name}: {note}" for note in found]
    return exposure


def _is_product(path: Path) -> bool:
    """Tell a product of ours, which has everything, from other files."""
    with io.open_fits(path) as hdus:
        return str(hdus[0].header.get("PRODUCT")) == "exposure"


def _info(raw: Raw, gain: float | None, saturation: float) -> VisitInfo:
    header = raw.header
    band = str(header.get("BAND") or header.get("FILTER") or "r").strip()[:1]
    mjd = number(header, "MJDMIDT", "MJD-MID", "MJD-OBS", "MJD")
    return VisitInfo(
        visit=int(number(header, "VISIT", "EXPNUM") or 0),
        detector=int(number(header, "DETECTOR", "CCDNUM") or 0),
        band=band if band in "ugrizy" else "r",
        exptime=number(header, "EXPTIME") or float("nan"),
        midpoint_mjd_tai=mjd or 0.0,
        gain=gain or 1.0,
        read_noise=number(header, "RDNOISE", "READNOIS") or 0.0,
        saturation=saturation,
    )


def _unit(raw: Raw) -> str:
    unit = str(raw.header.get("BUNIT", "adu")).strip().lower()
    known = {"njy": "nJy", "electron": "electron", "electrons": "electron", "e-": "electron"}
    return known.get(unit, "adu")


def _wcs(raw: Raw) -> WCS | None:
    return world.from_header(dict(raw.header))


def _pixel_wcs() -> WCS:
    """Coordinates for an image without any: pixels as arcseconds round the origin."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cdelt = [-1 / 3600, 1 / 3600]
    wcs.wcs.crpix = [1.0, 1.0]
    wcs.wcs.crval = [0.0, 0.0]
    return wcs


def _on_same_pixels(
    first: Exposure, second: Exposure, science: Planes, template: Planes, notes: list[str]
) -> bool:
    """Whether the template needs no resampling; an error if that cannot be known."""
    if first.wcs is None or second.wcs is None:
        if first.shape != second.shape:
            lacking = science.path if first.wcs is None else template.path
            raise InputError(
                "the images have different shapes and this one has no sky coordinates",
                path=lacking,
                expected=f"a WCS, or {first.shape[1]} x {first.shape[0]} pixels in both",
            )
        notes.append("images taken as registered: at least one has no sky coordinates")
        return True
    if first.shape != second.shape:
        return False
    ny, nx = first.shape
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(0, nx - 1, 5), np.linspace(0, ny - 1, 5)))
    there = second.wcs.all_world2pix(*first.wcs.all_pix2world(x, y, 0), 0, quiet=True)
    shift = np.hypot(there[0] - x, there[1] - y)
    return bool(np.nanmax(shift) < _SAME_PIXELS)
