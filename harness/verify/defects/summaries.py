"""Defects of objects and packets: summaries, association, history, values that drift."""

from __future__ import annotations

from functools import partial
from typing import Any

from harness.verify.copy import Copy
from harness.verify.defect import DEFECTS, Defect, defect, graded

__all__: list[str] = []

_SUMMARIES = "AG-00-25/summaries"
_BANDS = "ugrizy"
_DRIFTING = {
    "DiaSource": (
        "ra", "dec", "raErr", "decErr", "x", "y", "apFlux", "apFluxErr", "psfFlux", "psfFluxErr",
        "psfChi2", "psfLnL", "snr", "scienceFlux", "templateFlux", "ixx", "iyy", "ixxPSF",
        "extendedness", "reliability", "templateBackground", "midpointMjdTai",
    ),
    "DiaForcedSource": (
        "ra", "dec", "psfFlux", "psfFluxErr", "scienceFlux", "scienceFluxErr", "midpointMjdTai",
    ),
    "candidate": ("snr", "x", "y"),
}  # fmt: skip
_CHECKS = {
    "DiaSource": "AG-00-05/diasources/catalogued",
    "DiaForcedSource": "AG-00-05/diasources/forced-catalogued",
    "candidate": "AG-00-05/diasources/ledgers-catalogued",
}


def _drift(copy: Copy, table: str, column: str) -> None:
    copy.sql(f'update "{table}" set "{column}" = 1.001 * "{column}" where "{column}" is not null')


for _table, _columns in _DRIFTING.items():
    for _column in _columns:
        _name = f"drift-{_table}-{_column}".lower()
        DEFECTS[_name] = Defect(
            _name,
            f"Let {_column} of {_table} drift by a thousandth in the catalogue",
            _CHECKS[_table],
            partial(_drift, table=_table, column=_column),
        )


def _scale(copy: Copy, column: str, amount: float) -> None:
    """Scale a column of objects in every band."""
    terms = (f"{b}_{column} = {1 + amount!r} * {b}_{column}" for b in _BANDS)
    copy.sql(f"update DiaObject set {', '.join(terms)}")


@graded("mean-scale", f"{_SUMMARIES}/mean-flux", 0.01, 0.1, faint=1e-7)
def mean_scale(copy: Copy, amount: float) -> None:
    """Make all mean fluxes of objects larger by a share of {}."""
    _scale(copy, "psfFluxMean", amount)


@graded("mean-error-scale", f"{_SUMMARIES}/mean-flux", 0.05, -0.2, faint=1e-5)
def mean_error_scale(copy: Copy, amount: float) -> None:
    """Make all errors of mean fluxes larger by a share of {}."""
    _scale(copy, "psfFluxMeanErr", amount)


@graded("chi2-scale", f"{_SUMMARIES}/chi2", 0.05, -0.3, faint=1e-4)
def chi2_scale(copy: Copy, amount: float) -> None:
    """Make all χ² of fluxes of objects larger by a share of {}."""
    _scale(copy, "psfFluxChi2", amount)


@graded("forced-mean-scale", "AG-00-25/units/forced-mean", 0.05, 1.0, faint=1e-7)
def forced_mean_scale(copy: Copy, amount: float) -> None:
    """Make all mean forced fluxes of objects larger by a share of {}."""
    _scale(copy, "fpFluxMean", amount)


@graded("object-shift", f"{_SUMMARIES}/position", 0.02, 0.05, faint=0.0005)
def object_shift(copy: Copy, amount: float) -> None:
    """Move all objects by {} arcsec in declination."""
    copy.sql(f"update DiaObject set dec = dec + {amount} / 3600")


def _one_band(copy: Copy, band: str) -> None:
    mean = f"coalesce(1.05 * {band}_psfFluxMean, 100.0)"
    copy.sql(f"update DiaObject set {band}_psfFluxMean = {mean}")


for _band in "gri":
    DEFECTS[f"mean-of-{_band}"] = Defect(
        f"mean-of-{_band}",
        f"Make the mean fluxes in {_band} five per cent too large, or 100 nJy where there is none",
        f"{_SUMMARIES}/mean-flux",
        partial(_one_band, band=_band),
    )


@defect("late-first", f"{_SUMMARIES}/first-last")
def late_first(copy: Copy) -> None:
    """Date the first source of every object a second late."""
    copy.sql("update DiaObject set firstDiaSourceMjdTai = firstDiaSourceMjdTai + 1.2e-5")


@defect("one-count-too-many", "AG-00-25/counts/equals-children")
def one_count_too_many(copy: Copy) -> None:
    """Count one source too many for one object."""
    copy.sql(
        "update DiaObject set nDiaSources = nDiaSources + 1 "
        "where diaObjectId = (select min(diaObjectId) from DiaObject)"
    )


@defect("look-ahead", f"{_SUMMARIES}/no-look-ahead")
def look_ahead(copy: Copy) -> None:
    """Let superseded versions of objects know their last source already."""
    copy.sql("update DiaObjectHistory set nDiaSources = nDiaSources + 1")


@defect("merged-objects", "AG-00-25/membership/close")
def merged_objects(copy: Copy) -> None:
    """Give the sources of one object to another far away."""
    copy.sql(
        "update DiaSource set diaObjectId = (select max(diaObjectId) from DiaObject) "
        "where diaObjectId = (select min(diaObjectId) from DiaObject)"
    )


def _packets(copy: Copy, column: str) -> None:
    def change(packets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for packet in packets:
            value = packet["diaSource"][column]
            packet["diaSource"][column] = None if value is None else 1.001 * value
        return packets

    copy.alerts(change)


for _column in (
    "ra",
    "dec",
    "psfFlux",
    "psfFluxErr",
    "snr",
    "apFlux",
    "midpointMjdTai",
    "reliability",
):
    _name = f"packet-drift-{_column}".lower()
    DEFECTS[_name] = Defect(
        _name,
        f"Let {_column} drift by a thousandth in the packets of a file",
        "AG-00-30/content/catalogued",
        partial(_packets, column=_column),
    )
