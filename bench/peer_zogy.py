"""Subtract with stdpipe's ZOGY: ``python peer_zogy.py`` in the folder of a pair.

A program of its own, so that it can run under another interpreter than the one with Nightjar.
PSFs are those of psfex, which stdpipe runs itself.
"""

import numpy as np
from astropy.io import fits
from stdpipe import psf, subtraction

SIDE, CELL, OVERLAP, WIDE = 41, 512, 50, 64


def main():
    planes = {}
    for name in ("science", "template"):
        image, header = fits.getdata(f"{name}.fits", header=True)
        bad = fits.getdata(f"{name}_mask.fits") > 0
        model, objects = psf.run_psfex(
            image.astype(float), mask=bad, gain=header["GAIN"], aper=13, thresh=5, order=2,
            vignet_size=SIDE, psf_size=SIDE, get_obj=True,
        )  # fmt: skip
        error = fits.getdata(f"{name}_sig.fits").astype(float)
        clean = np.where(bad, np.median(image), image).astype(float)
        planes[name] = (clean, bad, error, model, objects)
    (new, bad, error, model, objects) = planes["science"]
    (old, old_bad, old_error, old_model, old_objects) = planes["template"]
    ny, nx = (max(1, size // CELL) for size in new.shape)
    difference = subtraction.run_zogy(
        new, old, mask=bad, template_mask=old_bad, err=error, template_err=old_error,
        image_psf=model, template_psf=old_model, image_obj=objects, template_obj=old_objects,
        nx=nx, ny=ny, overlap=OVERLAP, nthreads=1,
    )[0]  # fmt: skip
    fits.writeto("zogy.fits", difference.astype(np.float32), overwrite=True)
    x, y = (np.arange(nx) + 0.5) * new.shape[1] / nx, (np.arange(ny) + 0.5) * new.shape[0] / ny
    s, t = np.median(error) ** 2, (np.median(old_error) / 1.3) ** 2
    cube = [[combined(model, old_model, u, v, s, t) for u in x] for v in y]
    fits.HDUList(
        [fits.PrimaryHDU(np.array(cube)), fits.ImageHDU(x), fits.ImageHDU(y)]
    ).writeto("zogy_psf.fits", overwrite=True)  # fmt: skip


def combined(first, second, x, y, s, t):
    """PSF of the proper difference (Zackay et al. 2016, equation 14), of unit flux."""
    p, q = (transformed(model, x, y) for model in (first, second))
    total = (s * abs(q) ** 2 + t * abs(p) ** 2) / (s + t)
    stamp = np.fft.fftshift(np.real(np.fft.ifft2(p * q / np.sqrt(total))))
    middle, half = WIDE // 2, SIDE // 2
    return stamp[middle - half : middle + half + 1, middle - half : middle + half + 1]


def transformed(model, x, y):
    stamp = psf.get_psf_stamp(model, x=x, y=y, dx=0, dy=0)
    half = len(stamp) // 2
    wide = np.zeros((WIDE, WIDE))
    wide[: len(stamp), : len(stamp)] = stamp
    return np.fft.fft2(np.roll(wide, (-half, -half), (0, 1)))


if __name__ == "__main__":
    main()
