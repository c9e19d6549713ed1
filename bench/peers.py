"""Other programs that subtract images, run on the files of a pair when they are installed.

hotpants is looked for on the path.  SFFT and stdpipe need other versions of what Nightjar is built
on, so they run under interpreters of their own: ``--peer-python sfft=PATH`` and ``stdpipe=PATH``,
or the variables NIGHTJAR_SFFT_PYTHON and NIGHTJAR_STDPIPE_PYTHON.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from astropy.io import fits
from scipy import fft

from bench.pairs import GAIN, RATIO, SATURATION, SKY, Pair
from bench.quality import Planes
from bench.timing import Cost, timed
from pipeline import io
from pipeline.exposure import GridPsf
from pipeline.masks import NOT_IN_SCORE, bits

__all__ = ["hotpants", "interpreters", "nightjar", "run_all", "write"]

_SFFT_BYTES_PER_PIXEL = 2900
_HOTPANTS = (
    "hotpants -inim science.fits -tmplim template.fits -outim hotpants.fits -ini science_sig.fits "
    "-tni template_sig.fits -imi science_mask.fits -tmi template_mask.fits -oni hotpants_sig.fits "
    "-il -200 -iu 44600 -tl -200 -tu 44600 -c t -n i -ko 2 -bgo 1 -nsx {nsx} -nsy {nsy} "
    "-r {r} -rss 18 -ng 3 6 {sigmas} -v 0"
)


def write(pair: Pair, folder: Path) -> None:
    """Write the pair in the forms that the programs read."""
    for name, e in (("science", pair.science), ("template", pair.template)):
        header = e.wcs.to_header()
        header["SATURATE"] = SATURATION - 2 * SKY
        header["ESATUR"] = 0.9 * SATURATION
        header["GAIN"] = GAIN
        bad = e.mask != 0
        for suffix, plane in (
            ("", e.image), ("_var", e.variance), ("_mask", bad.astype(np.int16)),
            ("_sig", np.sqrt(e.variance)),
        ):  # fmt: skip
            fits.writeto(folder / f"{name}{suffix}.fits", plane, header, overwrite=True)


def run_all(
    pair: Pair, folder: Path, pythons: dict[str, str]
) -> Iterator[tuple[str, Planes | None, Cost | str]]:
    """Run every program; yields its name, what it made and what it took, or why it did not run."""
    yield ("nightjar subtract", *nightjar(folder))
    yield ("nightjar subtract --no-detect", *nightjar(folder, "--no-detect"))
    for label, sigmas, r in (("", "0.45 4 0.90 2 1.80", 10), (", wide", "0.7 4 1.5 2 3.0", 12)):
        yield (f"hotpants{label}", *hotpants(pair, folder, sigmas, r))
    yield ("sfft, 1 thread", *_sfft(pair, folder, pythons.get("sfft")))
    yield ("stdpipe zogy, 1 thread", *_zogy(pair, folder, pythons.get("stdpipe")))


def nightjar(folder: Path, *options: str) -> tuple[Planes, Cost]:
    """Subtract with Nightjar's own program; without detection it does what the others do."""
    command = [sys.executable, "-m", "harness.cli.main", "subtract", "science.fits",
               "template.fits", "-o", "out", *options]  # fmt: skip
    for name in ("science", "template"):
        for plane, suffix in (("variance", "var"), ("mask", "mask")):
            command += [f"--{name}-{plane}", f"{name}_{suffix}.fits"]
    cost = timed(command, folder, 2)
    made = io.read_difference(folder / "out" / "difference.fits")
    e = made.exposure
    good = (e.mask & bits(*NOT_IN_SCORE)) == 0
    return Planes(e.image, e.variance, e.psf, good, made.null_variance, made.score), cost


def hotpants(
    pair: Pair, folder: Path, sigmas: str = "0.7 4 1.5 2 3.0", r: int = 12
) -> tuple[Planes | None, Cost | str]:
    """Subtract with hotpants (Becker 2015), convolving the template."""
    if not shutil.which("hotpants"):
        return None, "hotpants is not installed"
    ny, nx = pair.static.shape
    command = _HOTPANTS.format(sigmas=sigmas, r=r, nsx=max(3, nx // 205), nsy=max(3, ny // 205))
    cost = timed(command.split(), folder, 2)
    image, sigma = (fits.getdata(folder / f"hotpants{s}.fits") for s in ("", "_sig"))
    good = (np.abs(image) > 1e-25) & (sigma > 0) & _valid(folder)
    return Planes(image, sigma**2, pair.science.psf, good), cost


def _sfft(pair: Pair, folder: Path, python: str | None) -> tuple[Planes | None, Cost | str]:
    """Subtract with SFFT (Hu et al. 2022, ApJ 936, 157) on the CPU."""
    extractor = shutil.which("sex") or shutil.which("source-extractor")
    if not python or not _imports(python, "sfft") or not extractor:
        return None, "sfft is not installed, or SExtractor is not"
    need = _SFFT_BYTES_PER_PIXEL * pair.static.size
    if need > psutil.virtual_memory().available:
        return None, f"sfft needs some {need / 1e9:.0f} GB for this pair, more than is free"
    (folder / "sex").unlink(missing_ok=True)
    (folder / "sex").symlink_to(extractor)
    cost = timed([python, "-I", str(Path(__file__).with_name("peer_sfft.py"))], folder, 1)
    image = fits.getdata(folder / "sfft.fits")
    return Planes(image, _matched_variance(pair), pair.science.psf, _valid(folder)), cost


def _zogy(pair: Pair, folder: Path, python: str | None) -> tuple[Planes | None, Cost | str]:
    """Subtract with the ZOGY of stdpipe (Karpov 2025)."""
    if not python or not _imports(python, "stdpipe") or not shutil.which("psfex"):
        return None, "stdpipe is not installed, or psfex is not"
    cost = timed([python, "-I", str(Path(__file__).with_name("peer_zogy.py"))], folder, 1)
    image = fits.getdata(folder / "zogy.fits")
    with fits.open(folder / "zogy_psf.fits") as hdus:
        cube, x, y = (np.array(h.data, float) for h in hdus)
    variance = pair.science.variance + RATIO**2 * pair.template.variance
    return Planes(image, variance, GridPsf(cube, x, y), np.isfinite(image) & _valid(folder)), cost


def _imports(python: str, module: str) -> bool:
    done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
    return done.returncode == 0


def _valid(folder: Path) -> Any:
    return (fits.getdata(folder / "science_mask.fits") == 0) & (
        fits.getdata(folder / "template_mask.fits") == 0
    )


def _matched_variance(pair: Pair, half: int = 12, side: int = 128) -> Any:
    """Variance of science − κ ⊗ template with the true kernel of the middle of the image."""
    ny, nx = pair.static.shape
    spectra = []
    for e in (pair.science, pair.template):
        stamp = e.psf.at(nx / 2, ny / 2)
        spectra.append(fft.fft2(stamp, (side, side)))
    ratio = spectra[0] * np.conj(spectra[1]) / (np.abs(spectra[1]) ** 2 + 1e-7)
    kernel = np.roll(np.real(fft.ifft2(ratio)), (half, half), (0, 1))[
        : 2 * half + 1, : 2 * half + 1
    ]
    from scipy.signal import fftconvolve

    spread = fftconvolve(pair.template.variance, (RATIO * kernel) ** 2, mode="same")
    return pair.science.variance + np.maximum(spread, 0).astype(np.float32)


def interpreters(given: list[str]) -> dict[str, str]:
    """Interpreters of peers, from NAME=PATH arguments or from the environment."""
    found = {
        name: os.environ[variable]
        for name in ("sfft", "stdpipe", "photutils")
        if (variable := f"NIGHTJAR_{name.upper()}_PYTHON") in os.environ
    }
    return found | dict(pair.split("=", 1) for pair in given)
