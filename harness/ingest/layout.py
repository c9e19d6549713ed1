"""What a folder of HiTS 2015 holds: ap_verify_hits2015, ap_verify_ci_hits2015, or archive files.

Files are known by their names, wherever they lie below the folder: those of the NOIRLab archive
(``c4d_…_ori``, ``_zci`` for a master bias, ``_fci_g`` for a flat), those that Rubin's butler gives
(``cpBias_…``, ``cpFlat_…``, ``defects_…``, shards of reference catalogues, coadds) and those of
obs_decam_data (``defects/s1/20150105T000000.ecsv``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from pipeline.errors import FileFormatError

__all__ = ["Layout", "is_pointer", "survey"]

_DAY = r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)T\d{6}Z?"
_ARCHIVE = r"c4d_(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)_\d{6}"
_FITS = r"\.fits(\.fz)?$"
_PATTERNS = {
    "raw": (rf"/{_ARCHIVE}_ori[^/]*{_FITS}",),
    "bias": (rf"/cpBias_[^/]*_{_DAY}{_FITS}", rf"/{_ARCHIVE}_zci[^/]*{_FITS}"),
    "flat": (
        rf"/cpFlat_[^/_]+_(?P<band>[a-zA-Z]+)_[^/]*_{_DAY}{_FITS}",
        rf"/{_ARCHIVE}_fci_(?P<band>[a-zA-Z]+)[^/]*{_FITS}",
    ),
    "positions": (r"/(?P<catalogue>gaia_dr\d_\d+)_(?P<trixel>\d+)_refcats[^/]*\.fits$",),
    "fluxes": (r"/(?P<catalogue>ps1_pv\d_3pi_\d+)_(?P<trixel>\d+)_refcats[^/]*\.fits$",),
    "defects": (
        rf"/defects_[^/_]+_(?P<detpos>[A-Za-z]+\d+)_[^/]*_{_DAY}\.(fits|ecsv)$",
        rf"/defects/(?P<detpos>[A-Za-z]+\d+)/{_DAY}\.ecsv$",
    ),
    "fringe": (rf"(?i:/[^/]*fringe[^/]*){_FITS}",),
    "coadd": (r"/(deep|goodSeeing)Coadd_[^/]*\.fits$",),
}
_COMPILED = {kind: [re.compile(p) for p in patterns] for kind, patterns in _PATTERNS.items()}


@dataclass(slots=True)
class Layout:
    """Files by what they are; pointers of Git LFS stand apart.

    Attributes
    ----------
    folder : Path
        Where they lie.
    raw, fringe, coadds, pointers : list of Path
        Raw exposures; fringe frames; coadds; files that were not fetched.
    bias : dict of date to Path
        Master biases.
    flats : dict of (str, date) to Path
        Master flats by band.
    positions, fluxes : dict of str to dict of int to Path
        Shards by catalogue and trixel.
    defects : dict of date to dict of str to Path
        Lists of defects by the day from which they hold and the detector's position.
    faults : dict of Path to str
        Files whose names make no sense, and why.
    """

    folder: Path
    raw: list[Path] = field(default_factory=list)
    fringe: list[Path] = field(default_factory=list)
    coadds: list[Path] = field(default_factory=list)
    pointers: list[Path] = field(default_factory=list)
    bias: dict[date, Path] = field(default_factory=dict)
    flats: dict[tuple[str, date], Path] = field(default_factory=dict)
    positions: dict[str, dict[int, Path]] = field(default_factory=dict)
    fluxes: dict[str, dict[int, Path]] = field(default_factory=dict)
    defects: dict[date, dict[str, Path]] = field(default_factory=dict)
    faults: dict[Path, str] = field(default_factory=dict)


def survey(folder: Path) -> Layout:
    """Look at the names of all files below a folder.

    Parameters
    ----------
    folder : Path
        A clone of a repository, or files from the archive.

    Returns
    -------
    Layout
        What is there.

    Raises
    ------
    FileFormatError
        If it is no folder, or holds nothing of HiTS.
    """
    if not folder.is_dir():
        raise FileFormatError("no such folder", path=folder, expected="a copy of HiTS 2015")
    layout = Layout(folder)
    for path, kind, match in _known(folder):
        if is_pointer(path):
            layout.pointers.append(path)
        else:
            try:
                _ADD[kind](layout, path, match)
            except ValueError as err:
                words = f"its name has no date: {err}; it is left out"
                layout.faults[path] = str(FileFormatError(words, path=path))
    if not layout.raw and not layout.pointers:
        raise FileFormatError(
            "holds no raw exposure",
            path=folder,
            expected="files like c4d_150218_052850_ori.fits.fz",
        )
    return layout


def is_pointer(path: Path) -> bool:
    """Tell whether a file is what Git LFS leaves in the place of one that was not fetched.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool
        True for a pointer.
    """
    with path.open("rb") as stream:
        return stream.read(24).startswith(b"version https://git-lfs")


def _known(folder: Path) -> Iterator[tuple[Path, str, re.Match[str]]]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).as_posix()
        if inside.startswith(".git/") or not path.is_file():
            continue
        for kind, patterns in _COMPILED.items():
            match = next(filter(None, (p.search(f"/{inside}") for p in patterns)), None)
            if match is not None:
                yield path.absolute(), kind, match
                break


def _date(match: re.Match[str]) -> date:
    year = int(match["year"])
    return date(year if year > 99 else 2000 + year, int(match["month"]), int(match["day"]))


def _add_shard(shards: dict[str, dict[int, Path]], path: Path, match: re.Match[str]) -> None:
    shards.setdefault(match["catalogue"], {})[int(match["trixel"])] = path


_ADD: dict[str, Callable[[Layout, Path, re.Match[str]], None]] = {
    "raw": lambda layout, path, _: layout.raw.append(path),
    "fringe": lambda layout, path, _: layout.fringe.append(path),
    "coadd": lambda layout, path, _: layout.coadds.append(path),
    "bias": lambda layout, path, m: layout.bias.update({_date(m): path}),
    "flat": lambda layout, path, m: layout.flats.update({(m["band"].lower(), _date(m)): path}),
    "positions": lambda layout, path, m: _add_shard(layout.positions, path, m),
    "fluxes": lambda layout, path, m: _add_shard(layout.fluxes, path, m),
    "defects": lambda layout, path, m: layout.defects.setdefault(_date(m), {}).update(
        {m["detpos"].upper(): path}
    ),
}
