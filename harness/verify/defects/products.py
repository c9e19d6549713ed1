"""Defects of images: planes, coordinates, kernels, provenance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from harness.settings import Settings
from harness.verify.copy import Copy
from harness.verify.defect import defect
from pipeline import io
from pipeline.camera import Camera
from pipeline.exposure import (
    Difference,
    Exposure,
    FloatArray,
    GridPsf,
    MatchingKernel,
    PolynomialPsf,
)
from pipeline.masks import BRIDGEABLE, bits

__all__: list[str] = []


def _with(difference: Difference, **changes: object) -> Difference:
    return dataclasses.replace(difference, exposure=difference.exposure.replace(**changes))


def _without_bits(exposure: Exposure, *planes: str) -> Exposure:
    return exposure.replace(mask=exposure.mask & ~bits(*planes))


@defect("strip-provenance", "AG-00-15/provenance/cards")
def strip_provenance(copy: Copy) -> None:
    """Take the cards that name the visit image out of a difference."""

    def change(d: Difference) -> Difference:
        left = {k: v for k, v in d.exposure.provenance.items() if k not in ("SCIID", "SCIHASH")}
        return _with(d, provenance=left)

    copy.difference(change)


@defect("swap-template", "AG-00-15/provenance/cards-resolve")
def swap_template(copy: Copy) -> None:
    """Let a difference name a template that it was not made with."""
    copy.difference(
        lambda d: _with(d, provenance={**d.exposure.provenance, "TMPLID": "another_g_01"})
    )


@defect("forgotten-input", "AG-00-15/provenance/cards-resolve")
def forgotten_input(copy: Copy) -> None:
    """Leave the last input of the template out of the cards of a difference."""

    def change(d: Difference) -> Difference:
        cards = dict(d.exposure.provenance)
        cards["NTMPLIN"] = int(cards["NTMPLIN"]) - 1
        return _with(d, provenance=cards)

    copy.difference(change)


@defect("edited-version", "AG-00-15/provenance/cards-resolve")
def edited_version(copy: Copy) -> None:
    """Let a difference claim another configuration than it was made with."""
    copy.difference(
        lambda d: _with(d, provenance={**d.exposure.provenance, "CONFHASH": "000000000000"})
    )


@defect("lost-cosmic-rays", "AG-00-15/masks/cosmic-rays")
def lost_cosmic_rays(copy: Copy) -> None:
    """Zero the cosmic-ray plane of a difference, as in 2017."""
    copy.difference(lambda d: dataclasses.replace(d, exposure=_without_bits(d.exposure, "CR")))


@defect("lost-saturation", "AG-00-15/masks/science-planes")
def lost_saturation(copy: Copy) -> None:
    """Zero the plane of the defects in a difference."""
    copy.difference(lambda d: dataclasses.replace(d, exposure=_without_bits(d.exposure, "BAD")))


@defect("stale-kernel", "AG-00-15/kernel/reproduces")
def stale_kernel(copy: Copy) -> None:
    """Put a kernel five per cent too strong into a difference."""

    def change(d: Difference) -> Difference:
        kernel: MatchingKernel = dataclasses.replace(
            d.kernel, coefficients=1.05 * d.kernel.coefficients
        )
        return dataclasses.replace(d, kernel=kernel)

    copy.difference(change)


@defect("dipoles", "AG-00-15/kernel/stars")
def dipoles(copy: Copy) -> None:
    """Leave a tenth of the gradient of a visit image in its difference."""
    unit = copy.science[0]
    scene = io.read_plane(copy.space.visit_image(unit.visit, unit.detector), "IMAGE")[0]
    gradient = np.roll(scene, 1, axis=1) - np.roll(scene, -1, axis=1)
    copy.difference(lambda d: _with(d, image=d.exposure.image + np.float32(0.1) * gradient))


@defect("overstated-difference-noise", "AG-00-15/noise/each")
def overstated_noise(copy: Copy) -> None:
    """Scale the variance plane of a difference by 1.3."""
    copy.difference(lambda d: _with(d, variance=np.float32(1.3) * d.exposure.variance))


@defect("correlated-noise", "AG-00-15/noise/white-rows")
def correlated_noise(copy: Copy) -> None:
    """Smear a difference along its rows and restore its variance."""

    def change(d: Difference) -> Difference:
        image = d.exposure.image
        mixed = (image + np.float32(0.5) * np.roll(image, 1, axis=1)) / np.float32(np.sqrt(1.25))
        return _with(d, image=mixed)

    copy.difference(change)


@defect("correlated-noise-along-columns", "AG-00-15/noise/white-columns")
def correlated_columns(copy: Copy) -> None:
    """Smear all differences a little along their columns and restore their variance."""

    def change(d: Difference) -> Difference:
        image = d.exposure.image
        mixed = (image + np.float32(0.1) * np.roll(image, 1, axis=0)) / np.float32(np.sqrt(1.01))
        return _with(d, image=mixed)

    copy.differences(change)


@defect("wide-difference-psf", "AG-00-15/psf/transients")
def wide_difference_psf(copy: Copy) -> None:
    """Let the PSFs of all differences be a third wider than their sources, with as much flux."""
    copy.differences(lambda d: _with(d, psf=_stamped(d.exposure, _wider)))


def _wider(stamps: FloatArray) -> FloatArray:
    return np.asarray(gaussian_filter(stamps, 1.5, axes=(-2, -1)))


@defect("wrong-difference-psf", "AG-00-15/psf/norm")
def wrong_difference_psf(copy: Copy) -> None:
    """Let the PSF of a difference hold five per cent too much flux."""
    copy.difference(lambda d: _with(d, psf=_scaled(d.exposure, 1.05)))


def _scaled(exposure: Exposure, factor: float) -> GridPsf | PolynomialPsf:
    return _stamped(exposure, lambda stamps: factor * stamps)


def _stamped(
    exposure: Exposure, change: Callable[[FloatArray], FloatArray]
) -> GridPsf | PolynomialPsf:
    """Change the stamps of a PSF, linearly."""
    psf = exposure.psf
    if isinstance(psf, GridPsf):
        return dataclasses.replace(psf, cube=change(psf.cube))
    assert isinstance(psf, PolynomialPsf)
    return dataclasses.replace(psf, coefficients=change(psf.coefficients))


def _beside(stamps: FloatArray) -> FloatArray:
    """Move stamps by a tenth of a pixel along x."""
    return np.asarray(0.9 * stamps + 0.1 * np.roll(stamps, 1, axis=-1))


@defect("wrong-psf", "AG-00-10/psf/evaluable")
def wrong_psf(copy: Copy) -> None:
    """Let the PSF of a visit image hold two per cent too much flux."""
    copy.image(lambda e: e.replace(psf=_scaled(e, 1.02)))


@defect("shifted-psf", "AG-00-10/psf/centred")
def shifted_psf(copy: Copy) -> None:
    """Put the PSF of a visit image a tenth of a pixel beside its place."""
    copy.image(lambda e: e.replace(psf=_stamped(e, _beside)))


@defect("shifted-difference-psf", "AG-00-15/psf/centred")
def shifted_difference_psf(copy: Copy) -> None:
    """Put the PSF of a difference a tenth of a pixel beside its place."""
    copy.difference(lambda d: _with(d, psf=_stamped(d.exposure, _beside)))


@defect("wide-psf", "AG-00-10/psf/size-each")
def wide_psf(copy: Copy) -> None:
    """Let the PSF model of a visit image be two per cent too wide."""
    from scipy import ndimage

    def change(e: Exposure) -> Exposure:
        assert isinstance(e.psf, PolynomialPsf)
        blurred = [c + 0.025 * ndimage.laplace(c) for c in e.psf.coefficients]
        return e.replace(psf=dataclasses.replace(e.psf, coefficients=np.array(blurred)))

    copy.image(change)


@defect("shifted-wcs", "AG-00-10/wcs/truth")
def shifted_wcs(copy: Copy) -> None:
    """Shift the coordinates of a visit image by 0.2 arcsec."""

    def change(e: Exposure) -> Exposure:
        assert e.wcs is not None
        wcs = e.wcs.deepcopy()
        wcs.wcs.crval = wcs.wcs.crval + np.array([0.0, 0.2 / 3600.0])
        wcs.wcs.set()
        return e.replace(wcs=wcs)

    copy.image(change)


@defect("overstated-noise", "AG-00-10/variance/truthful")
def overstated_variance(copy: Copy) -> None:
    """Scale the variance plane of a visit image by 1.3."""
    copy.image(lambda e: e.replace(variance=np.float32(1.3) * e.variance))


@defect("wrong-zero-point", "AG-00-10/zero-point/bias")
def wrong_zero_point(copy: Copy) -> None:
    """Make a visit image five per cent too bright."""
    copy.image(
        lambda e: e.replace(
            image=np.float32(1.05) * e.image, variance=np.float32(1.05**2) * e.variance
        )
    )


@defect("lost-background", "AG-00-10/background/identity")
def lost_background(copy: Copy) -> None:
    """Store two per cent too much background."""
    copy.image(
        lambda e: (
            e.replace(background=np.float32(1.02) * e.background) if e.background is not None else e
        )
    )


@defect("over-subtraction", "AG-00-10/background/bright-objects")
def over_subtraction(copy: Copy) -> None:
    """Dig rings of three standard deviations round everything that is bright."""
    from scipy import ndimage

    def change(e: Exposure) -> Exposure:
        noise = float(np.sqrt(np.median(e.variance[::8, ::8])))
        pixels = np.nan_to_num(e.image)
        bright = pixels > max(60.0 * noise, float(np.quantile(pixels[::2, ::2], 0.9999)))
        near = ndimage.binary_dilation(bright[::4, ::4], iterations=24)
        wide = np.repeat(np.repeat(near, 4, axis=0), 4, axis=1)[: e.shape[0], : e.shape[1]]
        return e.replace(image=np.where(wide & ~bright, e.image - np.float32(3 * noise), e.image))

    copy.image(change)


@defect("crosstalk-left", "AG-00-10/crosstalk/residual-large")
def crosstalk_left(copy: Copy) -> None:
    """Leave the mirrored ghosts of one amplifier in the other, on every image of a detector."""
    camera = Camera.load(copy.space.camera(Settings.load(copy.space.config).campaign.camera))
    first = copy.units[0].detector

    def change(e: Exposure) -> Exposure:
        image = e.image.copy()
        a, b = camera.detector(e.info.detector).amplifiers[:2]
        total = e.image if e.background is None else e.image + e.background
        signal = (
            total[b.trimmed.slices][:, ::-1]
            if a.at_right != b.at_right
            else total[b.trimmed.slices]
        )
        image[a.trimmed.slices] += np.float32(2e-3) * np.nan_to_num(signal - np.median(total))
        return e.replace(image=image)

    for index, unit in enumerate(copy.units):
        if unit.detector == first:
            copy.image(change, index)


@defect("bad-column-left", "AG-00-10/masks/columns-left")
def bad_column_left(copy: Copy) -> None:
    """Let a column shine and leave it unmasked."""

    def change(e: Exposure) -> Exposure:
        image = e.image.copy()
        column = e.shape[1] // 3
        image[:, column] += np.float32(3.0 * np.sqrt(np.median(e.variance[::8, ::8])))
        mask = e.mask.copy()
        mask[:, column] &= ~bits(*BRIDGEABLE, "INTRP")
        return e.replace(image=image, mask=mask)

    copy.image(change)


@defect("unlisted-unmasked", "AG-00-10/masks/unlisted-columns")
def unlisted_unmasked(copy: Copy) -> None:
    """Unmask the bad columns that were found on every image of a detector."""
    first = copy.units[0].detector
    for index, unit in enumerate(copy.units):
        if unit.detector == first:
            copy.image(lambda e: _without_bits(e, "UNLISTED", "BAD"), index)


@defect("saturation-unmasked", "AG-00-10/masks/saturated-counts")
def saturation_unmasked(copy: Copy) -> None:
    """Take the saturated plane off every visit image of the first visit."""
    for index, unit in enumerate(copy.units):
        if unit.visit == copy.units[0].visit:
            copy.image(lambda e: _without_bits(e, "SAT"), index)


@defect("cosmic-rays-unmasked", "AG-00-10/masks/cosmic-rays-left")
def cosmic_rays_unmasked(copy: Copy) -> None:
    """Put fifty cosmic-ray hits into a visit image and mask none."""

    def change(e: Exposure) -> Exposure:
        image = e.image.copy()
        rng = np.random.default_rng(7)
        noise = np.sqrt(np.median(e.variance[::8, ::8]))
        y, x = (rng.integers(20, n - 20, 50) for n in e.shape)
        image[y, x] += np.float32(80.0 * noise)
        return e.replace(image=image)

    copy.image(change)


@defect("untrimmed", "AG-00-10/components/trimmed")
def untrimmed(copy: Copy) -> None:
    """Leave fifty columns of overscan on a visit image."""

    def change(e: Exposure) -> Exposure:
        def wider(plane: np.ndarray) -> np.ndarray:
            return np.pad(plane, ((0, 0), (0, 50)), mode="edge")

        background = None if e.background is None else wider(e.background)
        return e.replace(
            image=wider(e.image),
            variance=wider(e.variance),
            mask=wider(e.mask),
            background=background,
        )

    copy.image(change)
