"""Fit Piff's PixelGrid to given stars: ``python peer_piff.py INPUT.npz OUTPUT.npz``.

A program of its own, so that it can run under another interpreter than the one with Nightjar.
The input has ``image`` (sky subtracted), ``variance`` (of a sky pixel), ``x y`` of the stars and
``at_x at_y`` where the PSF is wanted, all 0-based; the output ``stamps`` and the ``seconds`` of
processor time that the fit took, reading and cutting out not counted.
"""

import sys
import time

import galsim
import numpy as np
import piff

SIDE = 41


def main():
    given = np.load(sys.argv[1])
    image = galsim.ImageF(given["image"], xmin=1, ymin=1)
    weight = galsim.ImageF(np.full(given["image"].shape, 1.0 / given["variance"], np.float32))
    image.wcs = weight.wcs = galsim.PixelScale(1.0)
    stars = []
    for x, y in zip(given["x"] + 1.0, given["y"] + 1.0, strict=True):
        half, ix, iy = SIDE // 2, round(x), round(y)
        box = galsim.BoundsI(ix - half, ix + half, iy - half, iy + half)
        data = piff.StarData(image[box], galsim.PositionD(x, y), weight=weight[box])
        stars.append(piff.Star(data, None))
    psf = piff.SimplePSF(
        piff.PixelGrid(scale=1.0, size=25, interp=galsim.Lanczos(11)),
        piff.BasisPolynomial(order=2),
        outliers=[piff.ChisqOutliers(nsigma=4.0, max_remove=0.05)],
    )
    start = time.process_time()
    psf.fit(stars, {0: image.wcs}, None)
    seconds = time.process_time() - start
    stamps = [
        psf.draw(x=x + 1.0, y=y + 1.0, stamp_size=SIDE, center=True).array
        for x, y in zip(given["at_x"], given["at_y"], strict=True)
    ]
    np.savez(sys.argv[2], stamps=np.array(stamps), seconds=seconds)


if __name__ == "__main__":
    main()
