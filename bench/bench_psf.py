"""The PSF model beside those of Piff and psfex, made from the same stars in the same run.

Usage: ``python -m bench.bench_psf speed|science``.  Piff is taken from this interpreter or from the
one that ``NIGHTJAR_PIFF_PYTHON`` names, psfex and source-extractor from the path; what is absent is
a line without a value.  Times are processor time of one thread, of the fit alone.
"""

import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from astropy.io import fits

from bench.bench_calibrate import (
    SHAPE,
    cpu,
    held_out_chi2,
    mean_error,
    report,
    scenes,
    sky_free,
)
from pipeline.calibrate.psf import cut_stamps, fit_psf

SEED = 980
SKY_VARIANCE = 1249.0
STARS, FIELDS = 76, 6
SIDE = 41


class Stamps:
    """Stamps that a peer drew at known places, with the interface of a PSF."""

    def __init__(self, x, y, stamps):
        self.places = {(float(a), float(b)): s for a, b, s in zip(x, y, stamps, strict=True)}

    def at(self, x, y):
        return self.places[float(x), float(y)]


def piff(scene, other, folder):
    """Processor time of Piff's fit and its PSF at the places of the other stars."""
    python = os.environ.get("NIGHTJAR_PIFF_PYTHON")
    if python is None and importlib.util.find_spec("piff") is None:
        return None
    given, made = folder / "stars.npz", folder / "psf.npz"
    np.savez(given, image=sky_free(scene), variance=SKY_VARIANCE, x=scene.x, y=scene.y,
             at_x=other.x, at_y=other.y)  # fmt: skip
    script = Path(__file__).with_name("peer_piff.py")
    subprocess.run([python or sys.executable, script, given, made], check=True)
    result = np.load(made)
    return float(result["seconds"]), Stamps(other.x, other.y, result["stamps"])


def psfex(scene, other, folder):
    """Processor time of psfex and its PSF at the places of the other stars."""
    extractor = shutil.which("source-extractor") or shutil.which("sex")
    program = shutil.which("psfex")
    if not (extractor and program):
        return None
    fits.writeto(folder / "image.fits", sky_free(scene))
    _catalogue(scene, folder, extractor)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [program, "stars.cat", "-c", "/dev/null", "-PSFVAR_DEGREES", "2", "-PSF_SIZE", "41,41",
         "-PSF_SAMPLING", "1.0", "-SAMPLE_MINSN", "20", "-SAMPLE_FWHMRANGE", "2.0,10.0",
         "-CHECKPLOT_TYPE", "NONE", "-CHECKIMAGE_TYPE", "NONE", "-NTHREADS", "1",
         "-VERBOSE_TYPE", "QUIET", "-WRITE_XML", "N"],
        cwd=folder, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, Stamps(other.x, other.y, _draw(folder / "stars.psf", other))


def _catalogue(scene, folder, extractor):
    """Stars in psfex's format, measured by source-extractor, only those that are given."""
    columns = ("VIGNET(45,45)", "X_IMAGE", "Y_IMAGE", "FLUX_RADIUS", "SNR_WIN", "FLUX_APER(1)",
               "FLUXERR_APER(1)", "ELONGATION", "FLAGS")  # fmt: skip
    (folder / "columns").write_text("\n".join(columns) + "\n")
    subprocess.run(
        [extractor, "image.fits", "-c", "/dev/null", "-CATALOG_NAME", "all.cat", "-CATALOG_TYPE",
         "FITS_LDAC", "-PARAMETERS_NAME", "columns", "-FILTER", "N", "-BACK_TYPE", "MANUAL",
         "-BACK_VALUE", "0", "-PHOT_APERTURES", "24", "-DETECT_THRESH", "5", "-GAIN", "1",
         "-VERBOSE_TYPE", "QUIET"],
        cwd=folder, check=True,
    )  # fmt: skip
    with fits.open(folder / "all.cat") as hdus:
        found = hdus[2].data
        gaps = np.hypot(
            found["X_IMAGE"][:, None] - 1.0 - scene.x, found["Y_IMAGE"][:, None] - 1.0 - scene.y
        )
        hdus[2].data = found[gaps.min(axis=1) < 2.0]
        hdus.writeto(folder / "stars.cat")


def _draw(path, other):
    """Evaluate a psfex model of one pixel's sampling at places."""
    with fits.open(path) as hdus:
        header, cube = hdus[1].header, hdus[1].data["PSF_MASK"][0].astype(float)
    u = (other.x + 1.0 - header["POLZERO1"]) / header["POLSCAL1"]
    v = (other.y + 1.0 - header["POLZERO2"]) / header["POLSCAL2"]
    terms = np.stack([np.ones_like(u), u, u * u, v, u * v, v * v], axis=1)
    stamps = np.tensordot(terms, cube, axes=(1, 0))
    edge = (stamps.shape[1] - SIDE) // 2
    return stamps[:, edge : edge + SIDE, edge : edge + SIDE]


def field(seed):
    """One field: time and residuals of our model, and of each peer that is installed."""
    options = {"shape": SHAPE, "n_faint": 0, "isolated": True, "curved": True, "turbulence": 0.0}
    scene = scenes.make_scene(seed, n_stars=STARS, **options)
    other = scenes.make_scene(seed + 100, n_stars=120, **options)
    image, noise = sky_free(scene), np.full(SHAPE, SKY_VARIANCE, np.float32)
    bad = np.zeros(SHAPE, bool)

    def model():
        stars = cut_stamps(image, bad, noise, scene.x, scene.y, scene.flux)
        return fit_psf(stars, SHAPE).psf

    found = {"ours": (cpu(model), float(held_out_chi2(model(), other).mean()))}
    for name, peer in (("Piff", piff), ("psfex", psfex)):
        with tempfile.TemporaryDirectory() as scratch:
            result = peer(scene, other, Path(scratch))
        if result is not None:
            found[name] = result[0], float(held_out_chi2(result[1], other).mean())
    return found


def main():
    if sys.argv[1:] != ["speed"]:
        return
    fields = [field(SEED + i) for i in range(FIELDS)]
    chi2 = [f["ours"][1] for f in fields]
    report("PSF χ²/pixel held out, ours", np.mean(chi2), "", 1.05, FIELDS, low=0.95,
           stderr=mean_error(chi2))  # fmt: skip
    for name, least in (("Piff", 100.0), ("psfex", 10.0)):
        if name not in fields[0]:
            report(f"PSF model: {name} over ours", None, "ratio", None, 0)
            continue
        speed = [f[name][0] / f["ours"][0] for f in fields]
        better = [f["ours"][1] / f[name][1] for f in fields]
        report(f"PSF model: {name} over ours", np.mean(speed), "ratio", least, FIELDS, least=True,
               stderr=mean_error(speed))  # fmt: skip
        report(f"PSF residuals: χ² of ours over {name}'s", np.mean(better), "ratio", 1.0, FIELDS,
               low=0.0, stderr=mean_error(better))  # fmt: skip


if __name__ == "__main__":
    main()
