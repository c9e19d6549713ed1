"""The chain that a user would assemble from other programs, on the raw frames of a campaign.

Raw frame to measured sources of a difference: astropy and astroscrappy (`bench/peer_reduce.py`),
source-extractor, psfex, scamp, SWarp, hotpants, photutils (`bench/peer_photometry.py`).  Debian has
`source-extractor psfex scamp swarp`; hotpants (github.com/acbecker/hotpants) is built with
``cc -O3 -fcommon *.c -lcfitsio -lm`` and put on the path; ``pip install astroscrappy photutils``
into any interpreter, named by NIGHTJAR_PHOTUTILS_PYTHON or ``--peer-python photutils=PATH``.
What is not there is named, and there is then no ratio.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits

from bench.timing import timed
from pipeline import io
from pipeline.schema import to_numpy

__all__ = ["STEPS", "Chain", "missing"]

HERE = Path(__file__).parent
PROGRAMS = ("source-extractor", "psfex", "scamp", "SWarp", "hotpants")
STEPS = {
    "signature": "overscan, bias, flat (astropy); neither crosstalk nor linearity",
    "cosmic rays": "mask and cleaned image (astroscrappy)",
    "catalogue and PSF": "sources, PSF of order 2 (source-extractor, psfex)",
    "astrometry": "distorted WCS against the reference catalogue (scamp)",
    "template": "median of warped inputs (SWarp)",
    "warp": "template on the pixels of the frame (SWarp)",
    "subtraction": "difference and its noise (hotpants)",
    "detection": "sources of the difference (source-extractor)",
    "photometry": "their PSF fluxes (photutils)",
}
_COLUMNS = """X_IMAGE Y_IMAGE XWIN_IMAGE YWIN_IMAGE ERRAWIN_IMAGE ERRBWIN_IMAGE ERRTHETAWIN_IMAGE
FLUX_AUTO FLUXERR_AUTO FLUX_RADIUS FLUX_APER(1) FLUXERR_APER(1) ELONGATION FLAGS SNR_WIN"""
_FILTER = "CONV NORM\n1 2 1\n2 4 2\n1 2 1\n"
_QUIET = "-c /dev/null -WRITE_XML N -VERBOSE_TYPE QUIET -NTHREADS 1"
_EXTRACT = "-FILTER_NAME f.conv -CATALOG_TYPE FITS_LDAC -PHOT_APERTURES 14 -GAIN 1"
_SCAMP = (
    "-ASTREF_CATALOG FILE -ASTREFCAT_NAME ref.cat -ASTREFCENT_KEYS X_WORLD,Y_WORLD "
    "-ASTREFERR_KEYS ERRA_WORLD,ERRB_WORLD -ASTREFMAG_KEY MAG -ASTREFMAGERR_KEY MAGERR "
    "-ASTREFOBSDATE_KEY OBSDATE -POSITION_MAXERR 1.0 -POSANGLE_MAXERR 0.5 -PIXSCALE_MAXERR 1.02 "
    "-DISTORT_DEGREES 3 -CHECKPLOT_TYPE NONE -CHECKPLOT_DEV NULL"
)
_SWARP = (
    "-RESAMPLING_TYPE LANCZOS3 -SUBTRACT_BACK N -WEIGHT_TYPE MAP_WEIGHT -FSCALASTRO_TYPE NONE "
    "-FSCALE_KEYWORD UNSCALED"  # electrons, as the noise model of hotpants wants them
)
_HOTPANTS = (
    "hotpants -inim {name}.fits -tmplim t_{name}.fits -outim d_{name}.fits -oni n_{name}.fits "
    "-imi {name}_mask.fits -il 1 -iu {full:.0f} -tl 1 -tu {full:.0f} -ig 1 -ir {read:.1f} "
    "-tg {inputs} -tr {read:.1f} -c t -n i -ko 2 -bgo 1 -nrx 1 -nry 1 -nsx 10 -nsy 20 -r 10 "
    "-rss 18 -ng 3 6 0.45 4 0.90 2 1.80 -v 0"
)


def missing(python: str) -> list[str]:
    """Name the peers that are not installed here.

    Parameters
    ----------
    python : str
        Interpreter that should have astroscrappy and photutils.

    Returns
    -------
    list of str
        Programs and packages; empty if the chain can run.
    """
    lost = [name for name in PROGRAMS if not shutil.which(name)]
    for name in ("astroscrappy", "photutils"):
        done = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False)
        lost += [name] if done.returncode else []
    return lost


@dataclass
class Chain:
    """The peers at work in a folder, and the CPU seconds of their steps.

    Attributes
    ----------
    folder, campaign : Path
        Where they work, and the workspace whose raw frames they are given.
    python : str
        Interpreter of astroscrappy and photutils.
    spent : dict of str to float, s
        CPU time by step, all frames together.
    sources : list of int
        Sources measured on each difference.
    """

    folder: Path
    campaign: Path
    python: str
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    sources: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "f.conv").write_text(_FILTER)
        (self.folder / "d.param").write_text("\n".join(_COLUMNS.split()) + "\n")
        vignettes = (self.folder / "d.param").read_text() + "VIGNET(41,41)\n"
        (self.folder / "p.param").write_text(vignettes)
        self._reference()

    def frame(self, visit: int, detector: int, band: str) -> None:
        """Raw frame to a cleaned image with PSF and WCS."""
        name, calib = f"{visit}_{detector:02d}", self.campaign / "calib"
        command = [self.python, str(HERE / "peer_reduce.py"),
                   str(self.campaign / "raw" / f"{visit}.fits.fz"), str(detector),
                   str(calib / f"bias_{detector:02d}.fits"),
                   str(calib / f"flat_{band}_{detector:02d}.fits"), name]  # fmt: skip
        self._run("signature", command)
        rays = float((self.folder / f"{name}.rays").read_text())
        self.spent["signature"] -= rays
        self.spent["cosmic rays"] += rays
        self._extract("catalogue and PSF", f"{name}.fits", name, "p.param", 5.0)
        self._run("catalogue and PSF", f"psfex {name}.cat -PSFVAR_DEGREES 2 -PSF_SIZE 41,41 "
                  "-PSF_SAMPLING 1.0 -SAMPLE_MINSN 20 -CHECKPLOT_TYPE NONE -CHECKIMAGE_TYPE NONE "
                  f"-OUTCAT_TYPE NONE {_QUIET}")  # fmt: skip
        self._run("astrometry", f"scamp {name}.cat {_SCAMP} {_QUIET}")

    def template(self, name: str, inputs: list[str]) -> None:
        """Coadd frames that have been through `frame`."""
        files = ",".join(f"{each}.fits" for each in inputs)
        self._run("template", f"SWarp {files} -IMAGEOUT_NAME {name}.fits -WEIGHTOUT_NAME "
                  f"{name}.weight.fits -COMBINE_TYPE MEDIAN {_SWARP} {_QUIET}")  # fmt: skip

    def difference(self, visit: int, detector: int, template: str, inputs: int) -> None:
        """Subtract a template from a frame, and measure the sources."""
        name = f"{visit}_{detector:02d}"
        header = fits.getheader(self.folder / f"{name}.fits")
        size = "".join(f"{k:<8}= {header[k]}\n" for k in ("NAXIS", "NAXIS1", "NAXIS2"))
        solved = (self.folder / f"{name}.head").read_text(encoding="latin-1")
        (self.folder / f"t_{name}.head").write_text(size + solved, encoding="latin-1")
        self._run("warp", f"SWarp {template}.fits -IMAGEOUT_NAME t_{name}.fits -WEIGHTOUT_NAME "
                  f"t_{name}.weight.fits {_SWARP} {_QUIET}")  # fmt: skip
        values = {"full": header["SATURATE"], "read": header["RDNOISE"], "inputs": inputs}
        self._run("subtraction", _HOTPANTS.format(name=name, **values))
        self._extract("detection", f"d_{name}.fits", f"d_{name}", "d.param", 3.0)
        self._run("photometry", [self.python, str(HERE / "peer_photometry.py"), f"d_{name}.fits",
                  f"n_{name}.fits", f"d_{name}.cat", f"{name}.psf", f"d_{name}.ecsv"])  # fmt: skip
        with fits.open(self.folder / f"d_{name}.cat") as hdus:
            self.sources.append(len(hdus[2].data))

    def _extract(self, step: str, image: str, name: str, columns: str, threshold: float) -> None:
        limits = f"-DETECT_THRESH {threshold} -ANALYSIS_THRESH {threshold} -DETECT_MINAREA 5"
        self._run(step, f"source-extractor {image} -PARAMETERS_NAME {columns} "
                  f"-CATALOG_NAME {name}.cat {limits} {_EXTRACT} {_QUIET}")  # fmt: skip

    def _run(self, step: str, command: str | list[str]) -> None:
        words = command.split() if isinstance(command, str) else command
        self.spent[step] += timed(words, self.folder, 1).cpu

    def _reference(self) -> None:
        """Write the reference catalogue as scamp reads it."""
        table = io.read_parquet(self.campaign / "refcat" / "refcat.parquet")
        flux, error = to_numpy(table, "gFlux"), to_numpy(table, "gFluxErr")
        year = 2000.0 + (to_numpy(table, "epochMjdTai") - 51544.5) / 365.25
        columns = {
            "X_WORLD": to_numpy(table, "ra"), "Y_WORLD": to_numpy(table, "dec"),
            "ERRA_WORLD": to_numpy(table, "raErr") / 3.6e6,
            "ERRB_WORLD": to_numpy(table, "decErr") / 3.6e6,
            "MAG": 31.4 - 2.5 * np.log10(flux), "MAGERR": 1.0857 * error / flux, "OBSDATE": year,
        }  # fmt: skip
        objects = fits.BinTableHDU.from_columns(
            [fits.Column(k, "1D", array=v) for k, v in columns.items()], name="LDAC_OBJECTS"
        )
        cards = fits.PrimaryHDU().header.tostring().encode()
        head = np.array([cards], f"S{len(cards)}")
        column = fits.Column("Field Header Card", f"{len(cards)}A", array=head)
        fits.HDUList([
            fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column], name="LDAC_IMHEAD"), objects
        ]).writeto(self.folder / "ref.cat")  # fmt: skip
