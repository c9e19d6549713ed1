"""Views and macros of the catalogue: magnitudes, light curves, colours, matches."""

from __future__ import annotations

from itertools import pairwise

from pipeline.schema import BANDS

__all__ = ["VIEWS", "statements"]

_MACRO = """CREATE OR REPLACE{temporary} MACRO ab_mag(flux) AS
CASE WHEN flux > 0 THEN 31.4 - 2.5 * log10(flux) END"""

# Free parameters of the models: PSF x, y, flux; trail and length, angle; dipole two points.
_DERIVED = """CREATE OR REPLACE{temporary} VIEW diasource_derived AS
SELECT diaSourceId, diaObjectId, ssObjectId, visit, detector, band, midpointMjdTai,
  psfChi2 / nullif(greatest(psfNdata - 3, 0), 0) AS psfReducedChi2,
  trailChi2 / nullif(greatest(trailNdata - 5, 0), 0) AS trailReducedChi2,
  dipoleChi2 / nullif(greatest(dipoleNdata - 6, 0), 0) AS dipoleReducedChi2,
  ab_mag(psfFlux) AS psfMag,
  CASE WHEN psfFlux > 0 THEN 1.0857362 * psfFluxErr / psfFlux END AS psfMagErr,
  ab_mag(apFlux) AS apMag, ab_mag(scienceFlux) AS scienceMag, ab_mag(templateFlux) AS templateMag
FROM DiaSource WHERE NOT coalesce(isSubThreshold, false)"""

_LIGHTCURVE = """CREATE OR REPLACE{temporary} VIEW lightcurve AS
SELECT diaObjectId, midpointMjdTai, band, visit, detector, 'detection' AS kind,
  psfFlux, psfFluxErr, scienceFlux, scienceFluxErr, diaSourceId, reliability
FROM DiaSource WHERE diaObjectId IS NOT NULL AND NOT coalesce(isSubThreshold, false)
UNION ALL
SELECT diaObjectId, midpointMjdTai, band, visit, detector, 'forced',
  psfFlux, psfFluxErr, scienceFlux, scienceFluxErr, NULL, NULL
FROM DiaForcedSource"""

_MATCH = """CREATE OR REPLACE{temporary} VIEW diasource_object_match AS
SELECT s.diaSourceId, s.diaObjectId, s.visit, s.detector, m.objectId, m.objectType, m.rank,
  m.dist, m.lnP
FROM DiaSource s JOIN DiaObject_To_Object_Match m USING (diaObjectId)
WHERE NOT coalesce(s.isSubThreshold, false)"""


def _colour_view() -> str:
    columns = []
    for a, b in pairwise(BANDS):
        for kind in ("science", "psf"):
            first, second = f"{a}_{kind}FluxMean", f"{b}_{kind}FluxMean"
            columns.append(f"ab_mag({first}) - ab_mag({second}) AS {a}_{b}_{kind}Colour")
            columns.append(
                f"CASE WHEN {first} > 0 AND {second} > 0 THEN 1.0857362 * sqrt("
                f"({first}Err / {first}) ** 2 + ({second}Err / {second}) ** 2) END "
                f"AS {a}_{b}_{kind}ColourErr"
            )
    body = ",\n  ".join(columns)
    return (
        "CREATE OR REPLACE{temporary} VIEW diaobject_colour AS\n"
        f"SELECT diaObjectId,\n  {body}\nFROM DiaObject"
    )


_STATEMENTS = {
    "ab_mag": _MACRO,
    "diasource_derived": _DERIVED,
    "lightcurve": _LIGHTCURVE,
    "diasource_object_match": _MATCH,
    "diaobject_colour": _colour_view(),
}

VIEWS = tuple(name for name in _STATEMENTS if name != "ab_mag")
"""Names of the views."""


def statements(*, temporary: bool = False) -> list[str]:
    """Return SQL that makes the macro and every view, each after what it rests on.

    Parameters
    ----------
    temporary : bool
        Whether they last as long as the connection, for catalogues that are only read.

    Returns
    -------
    list of str
        ``CREATE`` statements.
    """
    word = " TEMP" if temporary else ""
    return [text.replace("{temporary}", word) for text in _STATEMENTS.values()]
