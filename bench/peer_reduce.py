"""Raw frame to electrons without cosmic rays, as a user of astropy and astroscrappy writes it.

``python peer_reduce.py RAW DETECTOR BIAS FLAT OUT``: overscan, bias, gain and flat, then
`astroscrappy.detect_cosmics` (van Dokkum 2001).  Writes OUT.fits, the mask OUT_mask.fits (1 is
bad), OUT.weight.fits, and the CPU seconds of astroscrappy in OUT.rays.  No crosstalk, no linearity,
no bleeds: the packages have none.
"""

import re
import sys
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from astroscrappy import detect_cosmics

_NOT_OF_THE_TRIMMED = re.compile(
    r"DATASEC|BIASSEC|CCDSEC|TRIMSEC|LTV|BSCALE|BZERO|CHECKSUM|DATASUM"
)


def section(text):
    """Slices of a FITS section ``[x1:x2,y1:y2]``."""
    x0, x1, y0, y1 = map(int, re.findall(r"\d+", text))
    return slice(y0 - 1, y1), slice(x0 - 1, x1)


def electrons(raw, header, bias, flat):
    """Image in electrons, saturated pixels, mean read noise."""
    image, full = np.zeros(bias.shape, np.float32), np.zeros(bias.shape, bool)
    for amp in "AB":
        data = raw[section(header[f"DATASEC{amp}"])].astype(np.float32)
        overscan = np.median(raw[section(header[f"BIASSEC{amp}"])][:, 5:-5], axis=1)
        place = section(header[f"CCDSEC{amp}"])
        image[place] = (data - overscan[:, None].astype(np.float32)) * header[f"GAIN{amp}"]
        full[place] = data >= header[f"SATURAT{amp}"]
    noise = np.mean([header["RDNOISEA"], header["RDNOISEB"]])
    image -= bias
    image /= np.where(flat > 0.05, flat, 1)
    return image, full | (flat <= 0.05), float(noise)


def main(raw, detector, bias, flat, out):
    """Reduce one frame."""
    with fits.open(raw) as hdus:
        (hdu,) = (h for h in hdus[1:] if h.header["CCDNUM"] == int(detector))
        header, data = hdu.header, hdu.data
        exptime = hdus[0].header["EXPTIME"]
    masters = [fits.getdata(path, "IMAGE").astype(np.float32) for path in (bias, flat)]
    image, bad, noise = electrons(data, header, *masters)
    full = float(0.9 * min(header[f"SATURAT{a}"] * header[f"GAIN{a}"] for a in "AB"))
    start = time.process_time()
    rays, image = detect_cosmics(image, inmask=bad, gain=1.0, readnoise=noise, satlevel=full,
                                 sepmed=True, cleantype="medmask")  # fmt: skip
    spent = time.process_time() - start
    kept = {k: v for k, v in header.items() if k and not _NOT_OF_THE_TRIMMED.match(k)}
    kept = fits.Header([(k, v) for k, v in kept.items() if k not in ("EXTNAME", "INHERIT")])
    kept["CRPIX1"] -= header["LTV1"]
    kept["CRPIX2"] -= header["LTV2"]
    kept.update({"EXPTIME": exptime, "GAIN": 1.0, "RDNOISE": noise, "SATURATE": full})
    mask = bad | rays
    fits.writeto(f"{out}.fits", image, kept, overwrite=True)
    fits.writeto(f"{out}_mask.fits", mask.astype(np.int16), kept, overwrite=True)
    fits.writeto(f"{out}.weight.fits", (~mask).astype(np.float32), kept, overwrite=True)
    Path(f"{out}.rays").write_text(f"{spent}")


if __name__ == "__main__":
    main(*sys.argv[1:])
