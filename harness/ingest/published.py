"""Published copies of HiTS 2015: checksums of their files, and the units that LDM-533 lists.

Two tables of facts: ``hits2015_exposures.csv``, the archive's log with the MD5 of each raw exposure
(as kept in lsst/ap_verify_ci_hits2015), and ``decam_lfs_manifest.csv``, the Git LFS pointers of the
repositories that hold the pixels.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from pipeline.exposure import VisitInfo
from pipeline.timescales import UNIX_EPOCH_MJD, midpoint_mjd_tai

__all__ = [
    "LDM533_DETECTORS",
    "LoggedExposure",
    "Promise",
    "Verification",
    "archive_log",
    "ldm533",
    "ldm533_visits",
    "verified",
]

_DATA = Path(__file__).parent / "data"
_BLOCK = 1 << 22
_FIELDS = ("Blind15A_26", "Blind15A_40", "Blind15A_42")

LDM533_DETECTORS = (*range(3, 61), 62)
"""CCDs of LDM-533: 2 and 61 are dead, and 1 was left out."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A unit of LDM-533.

    Attributes
    ----------
    visit, detector : int
        Exposure and CCD number.
    field : str
        Name of the field.
    start : str
        UTC of the start of the exposure.
    """

    visit: int
    detector: int
    field: str
    start: str


@dataclass(frozen=True, slots=True)
class LoggedExposure:
    """What the archive's log says of an exposure.

    Attributes
    ----------
    visit : int
        Exposure number.
    field, band : str
        Name of the field; filter.
    start : str
        UTC of the start of the exposure.
    exptime : float, s
        Open-shutter time.
    ra, dec : float, deg
        Pointing.
    """

    visit: int
    field: str
    band: str
    start: str
    exptime: float
    ra: float
    dec: float

    def info(self, detector: int, camera: str) -> VisitInfo:
        """Return the same as what a header would say of a detector.

        Parameters
        ----------
        detector : int
            CCD number.
        camera : str
            Name of the camera definition.

        Returns
        -------
        VisitInfo
            Without electronics and airmass.
        """
        start = datetime.fromisoformat(self.start).replace(tzinfo=UTC).timestamp() / 86400.0
        return VisitInfo(
            self.visit, detector, self.band, self.exptime,
            midpoint_mjd_tai(start + UNIX_EPOCH_MJD, self.exptime), self.ra, self.dec,
            camera=camera, field=self.field,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verification:
    """What the checksum of a file says.

    Attributes
    ----------
    sha256 : str
        Of the file.
    source : str
        The published copy that it is; empty if it is none.
    expected : str
        Digests of the copies that have its name; empty if none has.
    """

    sha256: str
    source: str = ""
    expected: str = ""


def ldm533() -> tuple[Promise, ...]:
    """List the 4,956 units of LDM-533: 84 visits in g of three fields, 59 CCDs each.

    Returns
    -------
    tuple of Promise
        In the order of visit and detector.
    """
    visits = sorted(
        (int(row["expnum"]), row["object"], row["date_obs_utc"])
        for row in _rows("hits2015_exposures")
        if row["object"] in _FIELDS and row["band"] == "g" and float(row["exptime_s"]) > 0
    )
    return tuple(Promise(v, d, f, s) for v, f, s in visits for d in LDM533_DETECTORS)


@lru_cache(maxsize=1)
def ldm533_visits() -> frozenset[int]:
    """Return the exposure numbers of LDM-533.

    Returns
    -------
    frozenset of int
        84 of them.
    """
    return frozenset(promise.visit for promise in ldm533())


@lru_cache(maxsize=1)
def archive_log() -> Mapping[str, LoggedExposure]:
    """Exposures by the name of their raw file in the archive.

    Returns
    -------
    mapping of str to LoggedExposure
        All of HiTS 2015.
    """
    return {row["archive_file"]: _logged(row) for row in _rows("hits2015_exposures")}


def _logged(row: Mapping[str, str]) -> LoggedExposure:
    numbers = (float(row[name]) for name in ("exptime_s", "ra_deg", "dec_deg"))
    return LoggedExposure(
        int(row["expnum"]), row["object"], row["band"], row["date_obs_utc"], *numbers
    )


def verified(path: Path) -> Verification:
    """Compare a file with the published copies of its name.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Verification
        Its SHA-256 and which copy it is.
    """
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            for digest in digests.values():
                digest.update(block)
    mine = {kind: digest.hexdigest() for kind, digest in digests.items()}
    copies = _copies().get(path.name, ())
    source = next((s for kind, value, s in copies if mine[kind] == value), "")
    expected = " or ".join(f"{kind} {value} ({s})" for kind, value, s in copies)
    return Verification(mine["sha256"], source, expected)


@lru_cache(maxsize=1)
def _copies() -> Mapping[str, list[tuple[str, str, str]]]:
    """Kind of digest, digest and source of every copy, by the name of the file."""
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in _rows("decam_lfs_manifest"):
        source = f"{row['repo']} {row['head']}"
        found[Path(row["path"]).name].append(("sha256", row["sha256"], source))
    for row in _rows("hits2015_exposures"):
        found[row["archive_file"]].append(("md5", row["md5"], "archive"))
    return found


@lru_cache(maxsize=2)
def _rows(name: str) -> list[dict[str, str]]:
    with (_DATA / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
