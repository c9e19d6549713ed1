"""The demonstration: a tiny campaign whose catalogue must equal the stored one within tolerances.

``python -m harness.verify.demo --workspace W`` compares the catalogue of W when W itself is such a
campaign, and otherwise simulates and processes one beside it; it prints ``Ok.`` when all agrees.
``--write`` stores the catalogue of W as what is expected from now on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.catalog import Catalog
from harness.execute import Config as Execution
from harness.settings import Campaign, Settings
from harness.system.scratch import scratch_folder

__all__ = ["EXPECTED", "compare", "is_demo", "main", "sources"]

EXPECTED = Path(__file__).resolve().parents[2] / "testcases" / "demo" / "sources.csv"
_PROFILE, _CAMERA, _SEED, _DETECTOR = "tiny", "testcam", 42, 1
_VISITS = (410985, 411035, 411069, 411420, 412568)  # three for the template, two to search
_LEAST_SNR = 8.0
_COLUMNS = ("visit", "detector", "x", "y", "ra", "dec", "psfFlux", "psfFluxErr", "snr")
_SQL = f"""select {", ".join(_COLUMNS)} from DiaSource
where not isSubThreshold and not isDeblendParent and not psfFlux_flag
and detector = {_DETECTOR} and visit in {_VISITS} and snr > {{snr}}
order by visit, detector, y, x"""

POSITION_TOLERANCE = 0.1
"""Distance on the sky between a stored source and the one found now, arcsec."""
FLUX_TOLERANCE = 0.02
"""Relative difference of the fluxes, on top of a tenth of the standard error."""
LOST_TOLERANCE = 0.02
"""Fraction of the stored sources that may be absent, and of new ones that may appear."""

Row = dict[str, float]


def sources(root: Path, snr: float = _LEAST_SNR) -> list[Row]:
    """Read the bright detections of a campaign.

    Parameters
    ----------
    root : path-like
        Its workspace.
    snr : float
        Least signal to noise; fainter ones come and go with the last bit.

    Returns
    -------
    list of dict
        One per detection.
    """
    with Catalog(root / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.fetch(_SQL.format(snr=snr))
    return [dict(zip(_COLUMNS, map(float, row), strict=True)) for row in rows]


def compare(expected: Sequence[Row], found: Sequence[Row]) -> list[str]:
    """List how a catalogue differs from the stored one, one sentence each.

    Parameters
    ----------
    expected : sequence of dict
        Stored sources.
    found : sequence of dict
        Those of now, to a lower limit of signal to noise so that none hides behind the cut.

    Returns
    -------
    list of str
        Empty when everything agrees within the tolerances.
    """
    if not expected:
        return ["no stored sources to compare with"]
    pairs = [(row, _nearest(row, found)) for row in expected]
    lost = [row for row, near in pairs if near is None]
    fluxes = [
        f"flux {near['psfFlux']:.6g} instead of {row['psfFlux']:.6g} nJy at {_place(row)}"
        for row, near in pairs
        if near is not None and not _same_flux(row, near)
    ]
    bright = [row for row in found if row["snr"] > 1.1 * _LEAST_SNR]
    new = [row for row in bright if _nearest(row, expected) is None]
    allowed = LOST_TOLERANCE * len(expected)
    absent = [f"no source at {_place(row)}, SNR {row['snr']:.1f}" for row in lost]
    extra = [f"a new source at {_place(row)}, SNR {row['snr']:.1f}" for row in new]
    return [
        *(absent if len(absent) > allowed else []),
        *(extra if len(extra) > allowed else []),
        *(fluxes if len(fluxes) > allowed else []),
    ]


def _place(row: Row) -> str:
    return f"{row['visit']:.0f}/{row['detector']:.0f} ({row['x']:.1f}, {row['y']:.1f})"


def _nearest(row: Row, rows: Sequence[Row]) -> Row | None:
    def distance(other: Row) -> float:
        # Tiny fields lie near the equator: cos(dec) = 0.99 makes no difference here.
        east, north = other["ra"] - row["ra"], other["dec"] - row["dec"]
        return float(3600.0 * (east * east + north * north) ** 0.5)

    same = [r for r in rows if (r["visit"], r["detector"]) == (row["visit"], row["detector"])]
    best = min(same, key=distance, default=None)
    return best if best is not None and distance(best) < POSITION_TOLERANCE else None


def _same_flux(a: Row, b: Row) -> bool:
    room = FLUX_TOLERANCE * abs(a["psfFlux"]) + 0.1 * a["psfFluxErr"]
    return abs(a["psfFlux"] - b["psfFlux"]) <= room


def is_demo(root: Path) -> bool:
    """Whether a workspace is itself the demonstration.

    Parameters
    ----------
    root : path-like
        The workspace.

    Returns
    -------
    bool
        By its profile and seed.
    """
    campaign = Settings.load(root / "nightjar.toml").campaign
    return (campaign.profile, campaign.seed) == (_PROFILE, _SEED)


def _make(root: Path) -> None:
    import sims
    from harness.campaign.run import run_campaign
    from harness.workspace import Workspace

    space = Workspace.create(root)
    campaign = Campaign(name=root.name, profile=_PROFILE, camera=_CAMERA, seed=_SEED)
    # One process: starting others would take longer than the work.
    Settings(campaign=campaign, execution=Execution(executor="serial")).save(space.config)
    sims.simulate(
        space.root, _PROFILE, seed=_SEED, jobs=1, visits=list(_VISITS), detectors=[_DETECTOR]
    )
    summary = run_campaign(root, quiet=True)
    if summary.troubles:
        raise RuntimeError("; ".join(f"{t.stage}: {t.message}" for t in summary.troubles)[:500])


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or store.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of the process by default.

    Returns
    -------
    int
        0 when the catalogue is as expected.
    """
    parser = argparse.ArgumentParser(prog="python -m harness.verify.demo", description=__doc__)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    with scratch_folder() as scratch:
        root = options.workspace
        if root is None or not is_demo(root):
            root = scratch / "demo"
            _make(root)
        if options.write:
            _store(sources(root))
            return 0
        differences = compare(_stored(), sources(root, 0.9 * _LEAST_SNR))
    sys.stdout.write("".join(f"{line}\n" for line in differences) or "Ok.\n")
    return 1 if differences else 0


def _store(rows: Sequence[Row]) -> None:
    EXPECTED.parent.mkdir(exist_ok=True)
    with EXPECTED.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows([f"{row[c]:.9g}" for c in _COLUMNS] for row in rows)


def _stored() -> list[dict[str, Any]]:
    with EXPECTED.open(newline="", encoding="utf-8") as stream:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


if __name__ == "__main__":
    sys.exit(main())
