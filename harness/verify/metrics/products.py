"""The written product itself: a valid FITS file of a reasonable size."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from pathlib import Path

from astropy.io import fits

from harness.verify.metric import Sample, metric
from harness.verify.view import View

__all__ = ["fits_faults"]

_PIXELS = 2048 * 4096
_HEADING = re.compile(r"Verification reported|HDU \d+:|Card \d+:|Note:")  # of astropy's list


@metric("invalid_fits", unit="fault", product="visit_image", reads=("visit_image",), reduce="sum")
def invalid_fits(view: View) -> Sample:
    """Faults against the FITS standard, by astropy and, where it is installed, fitsverify."""
    faults = fits_faults(view.space.visit_image(view.visit, view.number))
    judges = "astropy and fitsverify" if shutil.which("fitsverify") else "astropy alone"
    note = f"judged by {judges}" + "".join(f"; {fault}" for fault in faults[:1])
    return Sample(float(len(faults)), 1, note=note)


def fits_faults(path: Path) -> list[str]:
    """List what is wrong with a file by the FITS standard.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    list of str
        One phrase for each fault of astropy's verification, which reads every card, and for each
        error or warning of fitsverify.
    """
    return [*_astropy_faults(path), *_fitsverify_faults(path)]


def _astropy_faults(path: Path) -> list[str]:
    faults = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with fits.open(path, memmap=True, disable_image_compression=True) as hdus:
                hdus.verify("warn")
        except Exception as err:  # whatever a reader says about it is the finding
            faults.append(f"{type(err).__name__}: {' '.join(str(err).split())}")
    sentences = [" ".join(str(w.message).split()) for w in caught]
    return faults + [s for s in sentences if not _HEADING.match(s)]


def _fitsverify_faults(path: Path) -> list[str]:
    program = shutil.which("fitsverify")
    if program is None:
        return []
    done = subprocess.run([program, path], capture_output=True, text=True, timeout=120, check=False)
    return re.findall(r"^\*\*\* (?:Error|Warning):\s+(.*)$", done.stdout, re.MULTILINE)


@metric("file_size", unit="MB", product="visit_image", reads=("visit_image",), reduce="worst")
def file_size(view: View) -> Sample:
    """Size of the file, scaled to a detector of 2048 by 4096 pixels if it is larger than that."""
    ny, nx = view.visit_image.shape
    size = view.space.visit_image(view.visit, view.number).stat().st_size / 1e6
    return Sample(size / max(1.0, ny * nx / _PIXELS), 1)
