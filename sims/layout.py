"""A simulated campaign in the layout in which HiTS 2015 is published.

Names, extensions, units and tables are those of lsst-dm/legacy-ap_verify_hits2015: raw exposures
under the archive's names, one master bias and flat with an extension for each CCD, flats in counts
(the ratio of the gains is in them), reference stars in shards by trixel with angles in radians,
positions in one catalogue and fluxes of the Pan-STARRS1 system in another, defects in FITS region
tables.  What the real thing lacks is ``camera/``: the electronics as the observatory knows them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io import fits

from pipeline.camera import Camera, ColourTerm, Detector
from pipeline.errors import ConfigError
from pipeline.exposure import NJY_ZERO_POINT, FloatArray, Image
from pipeline.htm import trixel
from pipeline.io import atomic_path, read_parquet
from pipeline.io.hdus import array_hdu, cards, primary_hdu
from pipeline.sphere import unit_vectors
from sims.calibration import nominal_camera
from sims.profiles import Profile, profiles
from sims.schedule import Visit

__all__ = ["write_hits2015"]

_LEVEL = 7
_CALIBRATIONS = ("20150217T000000Z", "20150313T000000Z")
_CURATED = "20150105T000000Z"
_REFCATS = "refcats_DM-28636"
_READOUT = timedelta(seconds=47.0)  # from the end of the exposure to the name of the file
_MAS = np.radians(1.0) / 3.6e6
_SYSTEM = "ps1-decam"
_Columns = dict[str, npt.NDArray[np.generic]]


def write_hits2015(root: Path, profile: str, target: Path) -> None:
    """Write a simulated workspace anew as a copy of HiTS 2015.

    Parameters
    ----------
    root : path-like
        The workspace, simulated.
    profile : str
        Its profile.
    target : path-like
        The folder to write.

    Raises
    ------
    ConfigError
        If the workspace was not simulated yet.
    """
    chosen = profiles()[profile]
    camera = nominal_camera(root / "calib" / "camera", chosen.camera)
    if not (root / "refcat" / "refcat.parquet").is_file():
        raise ConfigError("is not simulated", path=root, hint="run nightjar sim first")
    for visit in chosen.visits:
        raw = root / "raw" / f"{visit.number}.fits.fz"
        if raw.is_file():
            _copy(raw, target / "raw" / _archive_name(visit))
    _write_calibrations(root, target / "preloaded" / "DECam" / "calib", chosen, camera)
    _write_shards(read_parquet(root / "refcat" / "refcat.parquet"), target, camera)
    for path in sorted((root / "calib" / "camera").rglob("*.*")):
        _copy(path, target / "camera" / path.relative_to(root / "calib" / "camera"))


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as half:
        shutil.copyfile(source, half)


def _archive_name(visit: Visit) -> str:
    end = datetime.fromisoformat(visit.start) + timedelta(seconds=visit.exptime) + _READOUT
    return f"c4d_{end:%y%m%d_%H%M%S}_ori.fits.fz"


# -- calibrations --------------------------------------------------------------------------------


def _write_calibrations(root: Path, folder: Path, profile: Profile, camera: Camera) -> None:
    made = [n for n in profile.detectors if (root / "calib" / f"bias_{n:02d}.fits").is_file()]
    detectors = [camera.detector(number) for number in made]
    first = detectors[0].name

    def bias(detector: Detector) -> Image:
        return _pixels(root / "calib" / f"bias_{detector.number:02d}.fits")

    for stamp in _CALIBRATIONS:
        name = f"cpBias_DECam_{first}_DECam_calib_{stamp}.fits"
        _write_master(folder / stamp / "cpBias" / name, detectors, bias, "zero")
    for band in sorted({visit.band for visit in profile.visits}):
        full = camera.passbands.bands[band].filter.replace(" ", "_")
        for stamp in _CALIBRATIONS:
            plain = full.replace(".", "_")
            name = f"cpFlat_DECam_{band}_{plain}_{first}_DECam_calib_{stamp}.fits"
            path = folder / stamp / "cpFlat" / band / full / name
            _write_master(path, detectors, partial(_flat_in_counts, root, band), "dome flat")
    for detector in detectors:
        name = f"defects_DECam_{detector.name}_DECam_calib_curated_{_CURATED}.fits"
        _write_defects(folder / "curated" / _CURATED / "defects" / name, detector)


def _pixels(path: Path) -> Image:
    with fits.open(path) as hdus:
        return np.ascontiguousarray(hdus["IMAGE"].data, np.float32)


def _flat_in_counts(root: Path, band: str, detector: Detector) -> Image:
    """Put the ratio of the gains into a flat; its mean is no longer one."""
    flat = _pixels(root / "calib" / f"flat_{band}_{detector.number:02d}.fits")
    mean = np.mean([amp.gain for amp in detector.amplifiers])
    for amp in detector.amplifiers:
        flat[amp.trimmed.slices] *= np.float32(mean / amp.gain)
    return flat


def _write_master(
    path: Path, detectors: Iterable[Detector], image: Callable[[Detector], Image], kind: str
) -> None:
    primary = cards([("PROCTYPE", "MasterCal", "data processing level"), ("OBSTYPE", kind, "kind")])
    with atomic_path(path) as half, half.open("wb") as stream:
        stream.write(primary_hdu(primary))
        for detector in detectors:
            header = cards(
                [
                    ("CCDNUM", detector.number, "detector number"),
                    ("DETPOS", detector.name, "detector position"),
                ]
            )
            stream.writelines(array_hdu(detector.name, image(detector), header))


def _write_defects(path: Path, detector: Detector) -> None:
    """Write a FITS region table: middles counted from one, points and boxes."""
    boxes = np.array([(b.x0, b.y0, b.width, b.height) for b in detector.defects], float)
    boxes = boxes.reshape(-1, 4)
    sizes = boxes[:, 2:]
    middles = boxes[:, :2] + 0.5 * (sizes + 1.0)
    shapes = np.where((sizes == 1.0).all(axis=1), "POINT", "BOX")
    columns = [
        fits.Column("X", "D", array=middles[:, 0]),
        fits.Column("Y", "D", array=middles[:, 1]),
        fits.Column("SHAPE", "8A", array=shapes),
        fits.Column("R", "2D", array=sizes),
        fits.Column("ROTANG", "D", array=np.zeros(len(boxes))),
    ]
    _write_table(path, columns, {"DETECTOR": detector.number, "RAFTNAME": detector.name})


def _write_table(
    path: Path, columns: Iterable[fits.Column], header: Mapping[str, str | int]
) -> None:
    table = fits.BinTableHDU.from_columns(list(columns))
    table.header.update(header)
    with atomic_path(path) as half:
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(half, overwrite=True)


# -- reference stars -----------------------------------------------------------------------------


def _write_shards(stars: pa.Table, target: Path, camera: Camera) -> None:
    columns = {n: stars[n].to_numpy(zero_copy_only=False) for n in stars.column_names}
    gaia: _Columns = {
        "id": columns["objectId"],
        "coord_ra": np.radians(columns["ra"]),
        "coord_dec": np.radians(columns["dec"]),
        "coord_raErr": columns["raErr"] * _MAS,
        "coord_decErr": columns["decErr"] * _MAS,
        "pm_ra": columns["pmRa"] * _MAS,
        "pm_dec": columns["pmDec"] * _MAS,
        "parallax": columns["parallax"] * _MAS,
        "epoch": columns["epochMjdTai"],
        "phot_g_mean_flux": columns["gFlux"],
    }
    panstarrs: _Columns = {n: gaia[n] for n in ("id", "coord_ra", "coord_dec", "epoch")}
    panstarrs |= _panstarrs_fluxes(columns, camera.passbands.colour_terms.get(_SYSTEM, {}))
    numbers = trixel(unit_vectors(columns["ra"], columns["dec"]), _LEVEL)
    folder = target / "preloaded" / "refcats" / "DM-28636"
    for catalogue, table in (("gaia_dr2_20200414", gaia), ("ps1_pv3_3pi_20170110", panstarrs)):
        for number in np.unique(numbers).tolist():
            rows = {n: values[numbers == number] for n, values in table.items()}
            parts = [
                fits.Column(n, "K" if v.dtype.kind == "i" else "D", array=v)
                for n, v in rows.items()
            ]
            path = folder / catalogue / f"{catalogue}_{number}_{_REFCATS}.fits"
            _write_table(path, parts, {"HIERARCH REFCAT_FORMAT_VERSION": 1})


def _panstarrs_fluxes(
    columns: Mapping[str, npt.NDArray[np.generic]], terms: Mapping[str, ColourTerm]
) -> _Columns:
    """Fluxes of the Pan-STARRS1 system that the colour terms turn into those of the camera."""
    bands = [band for band in "yzirg" if f"{band}Flux" in columns]
    own = {b: _magnitudes(np.asarray(columns[f"{b}Flux"], float)) for b in bands}
    found: dict[str, FloatArray] = {}
    for band in bands:  # from red to blue: each needs the next redder
        term = terms.get(band)
        found[band] = own[band]
        for _ in range(60 if term is not None and term.red in found else 0):
            assert term is not None
            colour = found[band] - found[term.red]
            found[band] = own[band] - term.c0 - term.c1 * colour - term.c2 * colour**2
    fluxes: _Columns = {}
    for band in bands:
        ratio = 10.0 ** (-0.4 * (found[band] - own[band]))
        for ending in ("", "Err"):
            values = np.asarray(columns[f"{band}Flux{ending}"], float)
            fluxes[f"{band}_flux{ending}"] = values * ratio
    return fluxes


def _magnitudes(flux: FloatArray) -> FloatArray:
    positive = np.where(flux > 0, flux, np.nan)
    return np.asarray(NJY_ZERO_POINT - 2.5 * np.log10(positive))
