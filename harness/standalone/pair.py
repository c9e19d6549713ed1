"""A science image and a template on the same pixels, with everything the stages need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs import WCS

from harness.standalone.estimate import (
    gain_of,
    normalised_psf,
    psf_of,
    saturation_of,
    variance_of,
    without_cosmic_rays,
)
from pipeline import io
from pipeline.errors import InputError, PixelError
from pipeline.exposure import Exposure, GridPsf, VisitInfo
from pipeline.ids import LARGEST_DETECTOR, LARGEST_VISIT
from pipeline.io.filters import band_of, filter_name
from pipeline.io.headers import number
from pipeline.io.keywords import item_of
from pipeline.io.nodata import no_data
from pipeline.io.planes import Planes, Raw, read_planes
from pipeline.io.psfs import read_psf
from pipeline.io.quality import mask_of
from pipeline.io.times import read_midpoint
from pipeline.psfphot import middle_fwhm

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
    enclosed : tuple of float
        Share of a star's light within `Psf.FLUX_RADIUS` of the science image and of the template.
    judged : mapping
        Of the science image's PSF: ``psfChi2``, χ² per pixel of stars left out of it,
        ``psfSkyErr``, relative error of its light that the sky leaves, and ``psfFluxErr``, of
        fluxes measured with it, not-a-number where unknown;
        ``enclosed``, as above; ``starFwhm``, pixel, see `pipeline.psfphot.fwhm`.
    """

    science: Exposure
    template: Exposure
    has_wcs: bool
    warped: bool
    estimated: tuple[bool, bool]
    notes: tuple[str, ...]
    planes: tuple[Planes, Planes]
    files: tuple[tuple[Path, ...], tuple[Path, ...]]
    enclosed: tuple[float, float] = (1.0, 1.0)
    judged: Mapping[str, float] = field(default_factory=dict)

    def with_template_psf(self) -> Pair:
        """Model the PSF of the template as well.

        What is detected is measured with it, and a kernel that has too few sources is made of it;
        a subtraction does without.

        Raises
        ------
        PsfError
            If the template has no star.
        """
        if self.template.psf is not None:
            return self
        notes = list(self.notes)
        template, enclosed, _ = _with_psf(self.template, self.planes[1], "template", notes)
        return replace(
            self, template=template, notes=tuple(notes), enclosed=(self.enclosed[0], enclosed)
        )

    def with_sky_variance(self, factor: float) -> Pair:
        """Scale the sky's part of the variances that had to be estimated.

        Parameters
        ----------
        factor : float
            New variance of the sky over the old one; the photon noise of sources stays.
        """
        first, second = (
            _scaled(e, factor) if estimated else e
            for e, estimated in zip((self.science, self.template), self.estimated, strict=True)
        )
        return replace(self, science=first, template=second)


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
    first, first_raw, first_estimated = _exposure(science, "science", notes)
    like = first_raw.header if first_raw is not None else None
    second, second_raw, second_estimated = _exposure(template, "template", notes, like)
    notes += _other_filter(first, second)
    _refuse_useless(first, "science")
    _refuse_useless(second, "template")
    has_wcs = first.wcs is not None
    warped = not registered and not _on_same_pixels(first, second, science, template, notes)
    if warped:
        from pipeline import template as templates

        assert first.wcs is not None
        second = templates.warp(second, first.wcs, first.shape)
        notes.append("template resampled onto the pixels of the science image")
    first, enclosed, judged = _with_psf(first, science, "science", notes)
    others = 1.0
    if template.psf is not None:
        second, others, _ = _with_psf(second, template, "template", notes)
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
        (_files(first_raw, science), _files(second_raw, template)),
        (enclosed, others),
        {**judged, "enclosed": enclosed, "starFwhm": _width(first)},
    )


def _scaled(exposure: Exposure, factor: float) -> Exposure:
    from pipeline.smooth import smooth_variance

    scale = np.float32(factor)
    sky = smooth_variance(exposure.variance, exposure.mask)
    # In a crowded field what looks like the sky's part has some of the sources in it.
    variance = np.maximum(exposure.variance + (scale - 1) * sky, scale * exposure.variance)
    return exposure.replace(variance=variance)


def _exposure(
    planes: Planes, name: str, notes: list[str], like: Mapping[str, Any] | None = None
) -> tuple[Exposure, Raw | None, bool]:
    """Read one image; returns it, its planes, and whether its variance had to be estimated.

    What had to be assumed goes to the notes under its name.
    """
    if _is_product(planes.path):
        return io.read_exposure(planes.path), None, False
    raw = read_planes(planes, like)
    own: list[str] = list(raw.notes)
    raw = _without_holes(raw, own)
    saturation = saturation_of(planes, raw, own)
    mask = mask_of(raw, saturation, planes.mask_bits, own)
    estimated = raw.variance is None and raw.weight is None
    gain = gain_of(planes, raw, mask, own) if estimated else planes.gain
    variance = variance_of(raw, mask, gain, own)
    info = _info(planes, raw, gain, saturation, own)
    psf = None if planes.psf is None else read_psf(planes.psf, raw.image.shape)
    exposure = Exposure(
        image=raw.image, variance=variance, mask=mask, info=info, wcs=raw.wcs, unit=_unit(raw),
        psf=psf,
    )  # fmt: skip
    if raw.mask is None:
        exposure = without_cosmic_rays(exposure, own)
    notes += [f"{name}: {note}" for note in own]
    return exposure, raw, estimated


def _without_holes(raw: Raw, notes: list[str]) -> Raw:
    """Image in which pixels without data are not-a-number."""
    holes, said = no_data(raw.image)
    notes += said
    if not said and not np.isinf(raw.image).any():
        return raw
    return replace(raw, image=np.where(holes, np.float32(np.nan), raw.image))


def _files(raw: Raw | None, planes: Planes) -> tuple[Path, ...]:
    return raw.files if raw is not None else (planes.path,)


def _other_filter(first: Exposure, second: Exposure) -> list[str]:
    """Say that the two images were taken through different filters."""
    bands = first.info.band, second.info.band
    if all(bands) and bands[0] != bands[1]:
        return [f"filters differ: science {bands[0]}, template {bands[1]}; stars of other colours"
                " leave residuals"]  # fmt: skip
    return []


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


def _with_psf(
    exposure: Exposure, planes: Planes, name: str, notes: list[str]
) -> tuple[Exposure, float, dict[str, float]]:
    """Exposure with a PSF, the share of light within its radius, and what judges a model."""
    if exposure.psf is None:
        found: list[str] = []
        psf, share, judged = psf_of(exposure, found, name)
        notes += [f"{name}: {note}" for note in found]
        return exposure.replace(psf=psf), share, judged
    if planes.psf is None or not isinstance(exposure.psf, GridPsf):
        return exposure, 1.0, {}
    given, share = normalised_psf(exposure.psf)
    return exposure.replace(psf=given), share, {}


def _width(exposure: Exposure) -> float:
    """Full width at half maximum of a star, pixel."""
    assert exposure.psf is not None
    return middle_fwhm(exposure.psf, exposure.shape)


def _is_product(path: Path) -> bool:
    """Tell a product of ours, which has everything, from other files."""
    with io.open_fits(path) as hdus:
        return str(hdus[0].header.get("PRODUCT")) == "exposure"


def _info(
    planes: Planes, raw: Raw, gain: float | None, saturation: float, notes: list[str]
) -> VisitInfo:
    header, cards = raw.header, planes.keywords
    moment = read_midpoint(header, start=cards.get("start", ""), exptime=cards.get("exptime", ""))
    notes += [f"time: {note}" for note in moment.notes]
    found = filter_name(header, cards.get("band", ""))
    visit = number(header, ("VISIT", "EXPNUM"))
    detector = number(header, ("DETECTOR", "CCDNUM"))
    read_noise = item_of(header, "read_noise", cards)
    return VisitInfo(
        visit=_identifier(visit, LARGEST_VISIT),
        detector=_identifier(detector, LARGEST_DETECTOR),
        band=band_of(found[1]) if found else "",
        exptime=moment.exptime or float("nan"),
        midpoint_mjd_tai=moment.mjd_tai or 0.0,
        gain=gain or 1.0,
        read_noise=planes.read_noise or (read_noise[1] if read_noise else 0.0),
        saturation=saturation,
    )


def _identifier(found: tuple[str, float] | None, largest: int) -> int:
    """Take the number of an exposure or detector; 0 if identifiers hold no such one."""
    return int(found[1]) if found and 0 <= found[1] <= largest else 0


def _unit(raw: Raw) -> str:
    unit = str(raw.header.get("BUNIT", "adu")).strip().lower()
    known = {"njy": "nJy", "electron": "electron", "electrons": "electron", "e-": "electron"}
    return known.get(unit, "adu")


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
    known = shift[np.isfinite(shift)]
    return bool(known.size and known.max() < _SAME_PIXELS)
