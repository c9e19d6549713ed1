"""PSF fluxes of the sources on a difference, by photutils with the model of psfex.

``python peer_photometry.py DIFFERENCE SIGMA SOURCES PSF OUT``: image and noise of hotpants, the
catalogue of source-extractor, the ``.psf`` file of the science image.  Writes a table, prints the
number of its rows.
"""

import sys

import numpy as np
from astropy.io import fits
from astropy.nddata import NDData
from astropy.table import Table
from photutils.psf import GriddedPSFModel, PSFPhotometry


def gridded(path, shape, nodes=(4, 8)):
    """Model of psfex (Bertin 2011), its polynomial evaluated on a grid."""
    with fits.open(path) as hdus:
        header, basis = hdus[1].header, hdus[1].data["PSF_MASK"][0].astype(float)
    degree = header["POLDEG1"]
    places = [(x, y) for y in np.linspace(0, shape[0] - 1, nodes[1])
              for x in np.linspace(0, shape[1] - 1, nodes[0])]  # fmt: skip
    stamps = []
    for x, y in places:
        u = (x + 1 - header["POLZERO1"]) / header["POLSCAL1"]
        v = (y + 1 - header["POLZERO2"]) / header["POLSCAL2"]
        terms = [u**i * v**j for j in range(degree + 1) for i in range(degree + 1 - j)]
        stamp = np.tensordot(terms, basis[: len(terms)], 1)
        stamps.append(stamp / stamp.sum())
    return GriddedPSFModel(NDData(np.array(stamps), meta={"grid_xypos": places, "oversampling": 1}))


def main(difference, sigma, sources, psf, out):
    """Measure the sources of one difference."""
    image, error = (fits.getdata(p).astype(float) for p in (difference, sigma))
    found = fits.getdata(sources, 2)
    bad = ~(error > 0) | (np.abs(image) < 1e-25)
    error[bad] = 1.0
    start = Table({"x": found["X_IMAGE"] - 1.0, "y": found["Y_IMAGE"] - 1.0})
    measure = PSFPhotometry(gridded(psf, image.shape), (9, 9), aperture_radius=5)
    made = measure(image, mask=bad, error=error, init_params=start) if len(start) else start
    made.write(out, overwrite=True)
    print(len(made))


if __name__ == "__main__":
    main(*sys.argv[1:])
