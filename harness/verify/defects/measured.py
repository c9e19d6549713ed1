"""Defects of measurements, alike in catalogue and staging: only pixels and truth show them."""

from __future__ import annotations

from harness.verify.copy import Copy
from harness.verify.defect import defect, graded
from pipeline import io

__all__: list[str] = []

_PIXELS = "AG-00-20/pixels"


@graded("flux-scale", f"{_PIXELS}/flux", 0.01, 0.03, -0.03, 1.0, faint=0.001)
def flux_scale(copy: Copy, amount: float) -> None:
    """Make all fluxes of sources larger by a share of {}."""
    copy.everywhere("DiaSource", f"psfFlux = {1 + amount} * psfFlux")


@graded("source-flux-errors", f"{_PIXELS}/source-errors", -0.2, 0.2, faint=0.02)
def source_flux_errors(copy: Copy, amount: float) -> None:
    """Make all flux errors of sources larger by a share of {}."""
    copy.everywhere("DiaSource", f"psfFluxErr = {1 + amount} * psfFluxErr")


@graded("forced-flux-errors", f"{_PIXELS}/flux-errors", -0.2, 0.2, -0.1, 0.1, faint=0.02)
def forced_flux_errors(copy: Copy, amount: float) -> None:
    """Make all flux errors of forced sources larger by a share of {}."""
    copy.everywhere("DiaForcedSource", f"psfFluxErr = {1 + amount} * psfFluxErr")


@graded("pixel-errors", f"{_PIXELS}/position-errors", -0.2, 0.2, 0.5, faint=0.02)
def pixel_errors(copy: Copy, amount: float) -> None:
    """Make all errors of positions in pixels larger by a share of {}."""
    factor = 1 + amount
    copy.everywhere("DiaSource", f"xErr = {factor} * xErr, yErr = {factor} * yErr")


@graded("sky-errors", f"{_PIXELS}/axes", -0.2, -0.05, faint=-0.001)
def sky_errors(copy: Copy, amount: float) -> None:
    """Make all errors of coordinates larger by a share of {}."""
    factor = 1 + amount
    copy.everywhere("DiaSource", f"raErr = {factor} * raErr, decErr = {factor} * decErr")


@defect("swapped-errors-everywhere", f"{_PIXELS}/axes")
def swapped_errors(copy: Copy) -> None:
    """Swap the errors of right ascension and declination in catalogue and staging."""
    copy.everywhere("DiaSource", "raErr = decErr, decErr = raErr")


@graded("aperture-scale", f"{_PIXELS}/aperture", 0.02, 0.1, -0.1, faint=0.002)
def aperture_scale(copy: Copy, amount: float) -> None:
    """Make all aperture fluxes larger by a share of {}."""
    copy.everywhere("DiaSource", f"apFlux = {1 + amount} * apFlux")


@defect("exchanged-moments", f"{_PIXELS}/shapes")
def exchanged_moments(copy: Copy) -> None:
    """Exchange the second moments of all sources along columns and rows."""
    copy.everywhere("DiaSource", "ixx = iyy, iyy = ixx")


@defect("exchanged-psf-moments", f"{_PIXELS}/psf-shapes")
def exchanged_psf_moments(copy: Copy) -> None:
    """Exchange the second moments of the PSF along columns and rows."""
    copy.everywhere("DiaSource", "ixxPSF = iyyPSF, iyyPSF = ixxPSF")


@graded("moments-scale", f"{_PIXELS}/sizes", 0.03, -0.03, faint=0.002)
def moments_scale(copy: Copy, amount: float) -> None:
    """Make all second moments larger by a share of {}."""
    factor = 1 + amount
    copy.everywhere(
        "DiaSource", f"ixx = {factor} * ixx, ixy = {factor} * ixy, iyy = {factor} * iyy"
    )


@graded("psf-moments-scale", f"{_PIXELS}/psf-sizes", 0.03, -0.03, faint=0.002)
def psf_moments_scale(copy: Copy, amount: float) -> None:
    """Make all second moments of the PSF larger by a share of {}."""
    f = 1 + amount
    copy.everywhere(
        "DiaSource", f"ixxPSF = {f} * ixxPSF, ixyPSF = {f} * ixyPSF, iyyPSF = {f} * iyyPSF"
    )


@defect("inverted-extendedness", "AG-00-20/attributes/extended")
def inverted_extendedness(copy: Copy) -> None:
    """Call points extended and extended sources points."""
    copy.everywhere("DiaSource", "extendedness = 1 - extendedness")


@graded("shift-ra", f"{_PIXELS}/coordinates", 0.003, 0.03, 3.0, faint=0.0002)
def shift_ra(copy: Copy, amount: float) -> None:
    """Move all sources by {} arcsec in right ascension."""
    copy.everywhere("DiaSource", f"ra = ra + {amount} / 3600 / cos(radians(dec))")


@graded("shift-dec", f"{_PIXELS}/coordinates", 0.003, 0.03, faint=0.0002)
def shift_dec(copy: Copy, amount: float) -> None:
    """Move all sources by {} arcsec in declination."""
    copy.everywhere("DiaSource", f"dec = dec + {amount} / 3600")


@graded("late-sources", f"{_PIXELS}/epoch", 1.0, 10.0, 30.0, -35.0, faint=0.01)
def late_sources(copy: Copy, amount: float) -> None:
    """Date all sources {} s later."""
    copy.everywhere("DiaSource", f"midpointMjdTai = midpointMjdTai + {amount} / 86400")


@graded("late-forced", "AG-00-25/forced/epochs", 1.0, 30.0, faint=0.001)
def late_forced(copy: Copy, amount: float) -> None:
    """Date all forced sources {} s later."""
    copy.everywhere("DiaForcedSource", f"midpointMjdTai = midpointMjdTai + {amount} / 86400")


@graded("wrong-clock", "AG-00-20/epoch/clock", 10.0, 30.0, -10.0, faint=1.0)
def wrong_clock(copy: Copy, amount: float) -> None:
    """Let known bodies lie where they were {} s before, as by a clock that is wrong everywhere."""
    copy.sql(
        "update SSSource set ephOffsetAlongTrack = ephOffsetAlongTrack + "
        f"{amount} * ephRate / 24, ephOffset = abs(ephOffset + {amount} * ephRate / 24)"
    )


@defect("forced-of-another-visit", f"{_PIXELS}/forced")
def forced_of_another_visit(copy: Copy) -> None:
    """Exchange the forced fluxes of all objects between two visits of a detector."""
    first = copy.science[0]
    other = next(u for u in copy.science if u.detector == first.detector and u != first)
    here = f"detector = {first.detector} and visit in ({first.visit}, {other.visit})"
    copy.sql(
        "update DiaForcedSource f set psfFlux = o.psfFlux from ("
        f"select diaObjectId, visit, psfFlux from DiaForcedSource where {here}) o "
        f"where f.detector = {first.detector} and f.visit in ({first.visit}, {other.visit}) "
        "and f.diaObjectId = o.diaObjectId and f.visit <> o.visit"
    )
    _restage(copy, "DiaForcedSource")


@defect("forced-of-the-next-object", f"{_PIXELS}/forced")
def forced_of_the_next_object(copy: Copy) -> None:
    """Give every forced source the flux of the object after it."""
    copy.sql(
        "update DiaForcedSource f set psfFlux = n.flux from (select diaForcedSourceId as id, "
        "lead(psfFlux) over (partition by visit, detector order by diaObjectId) as flux "
        "from DiaForcedSource) n where f.diaForcedSourceId = n.id and n.flux is not null"
    )
    _restage(copy, "DiaForcedSource")


def _restage(copy: Copy, table: str) -> None:
    """Write the staging tables anew from the catalogue."""
    from harness.catalog import Catalog

    with Catalog(copy.space.catalog, read_only=True) as catalog:
        for unit in copy.science:
            rows = catalog.table(table, "visit = ? and detector = ?", [unit.visit, unit.detector])
            io.write_parquet(copy.space.staging(table, unit.visit, unit.detector), rows)


@defect("flags-of-others", f"{_PIXELS}/flags")
def flags_of_others(copy: Copy) -> None:
    """Give every forced source the opposite of its flag of doubtful pixels."""
    copy.everywhere("DiaForcedSource", "pixelFlags_suspect = not pixelFlags_suspect")


@defect("flags-exchanged", f"{_PIXELS}/flags")
def flags_exchanged(copy: Copy) -> None:
    """Exchange the flags of interpolated and of saturated-in-the-template pixels."""
    copy.everywhere(
        "DiaForcedSource",
        "pixelFlags_interpolated = pixelFlags_saturated_template, "
        "pixelFlags_saturated_template = pixelFlags_interpolated",
    )


@defect("trails-in-degrees", "AG-00-20/attributes/trails")
def trails_in_degrees(copy: Copy) -> None:
    """Give the lengths of trails in degrees."""
    copy.everywhere("DiaSource", "trailLength = trailLength / 3600")


@defect("two-classifiers", "AG-00-20/reliability/one-version")
def two_classifiers(copy: Copy) -> None:
    """Let the last visit be judged by another classifier."""
    last = max(u.visit for u in copy.science)
    copy.everywhere("DiaSource", "reliabilityVersion = 'other'", f"visit = {last}")


@defect("duplicated-visit", "AG-00-25/unique/measurements")
def duplicated_visit(copy: Copy) -> None:
    """Let the sources of a visit be those of another one of the same detector."""
    first = copy.science[0]
    other = next(u for u in copy.science if u.detector == first.detector and u != first)
    copy.sql(
        "update DiaSource d set x = o.x, y = o.y, psfFlux = o.psfFlux from ("
        "select row_number() over (order by diaSourceId) as k, x, y, psfFlux from DiaSource "
        f"where visit = {first.visit} and detector = {first.detector}) o, ("
        "select row_number() over (order by diaSourceId) as k, diaSourceId from DiaSource "
        f"where visit = {other.visit} and detector = {other.detector}) n "
        "where o.k = n.k and d.diaSourceId = n.diaSourceId"
    )
    _restage(copy, "DiaSource")
