"""Defects by which something is absent, twice, or no longer what a view shows."""

from __future__ import annotations

from harness.verify.copy import Copy
from harness.verify.defect import defect, graded
from pipeline.schema import BANDS

__all__: list[str] = []

_FIRST = "visit = (select min(visit) from difference_image)"


def _first_unit(copy: Copy) -> str:
    unit = copy.science[0]
    return f"visit = {unit.visit} and detector = {unit.detector}"


@defect("unit-of-no-record", "AG-00-05/campaign/units-accounted")
def unit_of_no_record(copy: Copy) -> None:
    """Delete all that the ledger knows of a unit."""
    copy.free("unit")
    copy.sql(f"delete from unit where {_first_unit(copy)}")


@defect("nothing-done", "AG-00-05/run/done")
def nothing_done(copy: Copy) -> None:
    """Let no stage of any unit have ended well."""
    copy.sql("update unit set status = 'failed'")


@defect("no-objects", "AG-00-05/diaobjects/rows")
def no_objects(copy: Copy) -> None:
    """Empty the catalogue of objects."""
    copy.free("DiaObject")
    copy.sql("delete from DiaObject")


@defect("sources-not-ingested", "AG-00-05/diasources/ingested")
def sources_not_ingested(copy: Copy) -> None:
    """Leave the sources of a difference out of the catalogue."""
    copy.free("DiaSource")
    copy.sql(f"delete from DiaSource where {_first_unit(copy)}")


@defect("lost-source-table", "AG-00-05/diasources/unexplained")
def lost_source_table(copy: Copy) -> None:
    """Drop the source table of a difference without a word."""
    unit = copy.science[-1]
    copy.space.staging("DiaSource", unit.visit, unit.detector).unlink()


@defect("damaged-difference", "AG-00-05/differences/sound")
def damaged_difference(copy: Copy) -> None:
    """Change a few bytes of the pixels of a difference."""
    unit = copy.science[0]
    path = copy.space.difference(unit.visit, unit.detector)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4] = bytes(255 - b for b in data[middle : middle + 4])
    path.unlink()
    path.write_bytes(data)


@defect("lost-alert-file", "AG-00-30/one-each/files")
def lost_alert_file(copy: Copy) -> None:
    """Drop the alerts of a unit without a word."""
    unit = copy.science[0]
    copy.space.alerts(unit.visit, unit.detector).unlink()


@defect("announced-twice", "AG-00-30/one-each/twice")
def announced_twice(copy: Copy) -> None:
    """Announce a source twice."""
    copy.free("alert")
    copy.sql("insert into alert select * from alert where emitted limit 1")


@defect("silent-visit", "AG-00-40/failures/silent-visits")
def silent_visit(copy: Copy) -> None:
    """Withhold every alert of a visit."""
    copy.sql(f"update alert set emitted = false where {_FIRST}")


@defect("zero-point-without-error", "AG-00-10/zero-point/kept")
def zero_point_without_error(copy: Copy) -> None:
    """Forget the error of the zero point of the images of a visit."""
    copy.sql(f"update visit_image set zeroPointErr = null where {_FIRST}")


@defect("four-standards", "AG-00-10/wcs/standards")
def four_standards(copy: Copy) -> None:
    """Let the coordinates of the images of a visit rest on four stars."""
    copy.sql(f"update visit_image set nAstrometryStars = 4 where {_FIRST}")


@graded("held-out-chi2-scale", "AG-00-10/psf/held-out", 0.15, -0.15, faint=0.001)
def held_out_chi2_scale(copy: Copy, amount: float) -> None:
    """Make χ² at the stars held out of PSF fits larger by a share of {}."""
    copy.sql(f"update visit_image set psfChi2 = {1 + amount} * psfChi2")


@defect("other-projection", "AG-00-10/wcs/representation")
def other_projection(copy: Copy) -> None:
    """Declare a projection that few programs read in a visit image."""
    unit = copy.units[0]
    path = copy.space.visit_image(unit.visit, unit.detector)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data.replace(b"'RA---T", b"'RA---Z"))


@defect("partner-unmentioned", "AG-00-10/crosstalk/partners")
def partner_unmentioned(copy: Copy) -> None:
    """Let one more detector have been left out of the crosstalk of an image than its notes name."""
    path = "'$.crosstalkPartnersMissing'"
    more = f"json_extract(metrics, {path})::int + 1"
    copy.sql(
        "update visit_image set metrics = json_merge_patch(metrics, "
        f"json_object('crosstalkPartnersMissing', {more})) where {_FIRST}"
    )


@defect("template-made-again", "AG-00-15/provenance/catalogue-agrees")
def template_made_again(copy: Copy) -> None:
    """Let a difference have been made with an earlier state of its template."""
    copy.sql(f"update difference_image set templateSha256 = 'of before' where {_FIRST}")


@defect("no-covariances", "AG-00-20/attributes/covariances")
def no_covariances(copy: Copy) -> None:
    """Leave the covariances of positions and fluxes of point sources out."""
    copy.everywhere("DiaSource", "psfFlux_psfRa_Cov = null, psfFlux_psfDec_Cov = null")


@graded("bodies-off", "AG-00-20/epoch/moving-clock", 1.0, faint=0.01)
def bodies_off(copy: Copy, amount: float) -> None:
    """Let known bodies lie {}″ farther from their ephemerides."""
    copy.sql(f"update SSSource set ephOffset = ephOffset + {amount}")


@defect("no-faint-sources", "AG-00-20/faint/stored")
def no_faint_sources(copy: Copy) -> None:
    """Drop all sub-threshold sources."""
    copy.free("DiaSource")
    copy.sql("delete from DiaSource where isSubThreshold")


@defect("fit-without-chi2", "AG-00-20/derived/reduced-chi2-defined")
def fit_without_chi2(copy: Copy) -> None:
    """Let the view show no reduced χ² of sources."""
    _in_view(copy, "diasource_derived", "null::double as psfReducedChi2")


@graded("magnitude-system", "AG-00-20/derived/magnitudes", 0.01, faint=1e-6)
def magnitude_system(copy: Copy, amount: float) -> None:
    """Let the view show magnitudes fainter by {} mag."""
    _in_view(copy, "diasource_derived", f"scienceMag + {amount} as scienceMag")


@defect("light-curve-without-a-visit", "AG-00-25/derived/light-curve")
def light_curve_without_a_visit(copy: Copy) -> None:
    """Let the view of light curves leave a visit out."""
    _in_view(copy, "lightcurve", "band as band", f"visit <> {copy.science[0].visit}")


@defect("objects-without-chi2", "AG-00-25/derived/reduced-chi2")
def objects_without_chi2(copy: Copy) -> None:
    """Forget χ² of the fluxes of all objects."""
    copy.sql(f"update DiaObject set {', '.join(f'{b}_psfFluxChi2 = null' for b in BANDS)}")


@defect("means-without-errors", "AG-00-25/attributes/summaries")
def means_without_errors(copy: Copy) -> None:
    """Forget the errors of the mean fluxes of all objects."""
    copy.sql(f"update DiaObject set {', '.join(f'{b}_psfFluxMeanErr = null' for b in BANDS)}")


@defect("duplicate-forced", "AG-00-25/unique/forced")
def duplicate_forced(copy: Copy) -> None:
    """Let a forced source occur twice."""
    copy.free("DiaForcedSource")
    copy.sql("insert into DiaForcedSource select * from DiaForcedSource limit 1")


@defect("object-per-visit", "AG-00-25/counts/truth")
def object_per_visit(copy: Copy) -> None:
    """Give the sources of every visit objects of their own."""
    copy.free("DiaSource")
    copy.sql("update DiaSource set diaObjectId = diaObjectId + visit where diaObjectId is not null")


@defect("flux-summary-absent", "AG-00-25/units/declared")
def flux_summary_absent(copy: Copy) -> None:
    """Leave the column of the smallest flux in g out of the table of objects."""
    copy.free("DiaObject")
    copy.sql("alter table DiaObject drop column g_psfFluxMin")


@defect("residuals-as-sources", "AG-00-35/native/counts")
def residuals_as_sources(copy: Copy) -> None:
    """Let the sources of all differences occur ten times more, under numbers of their own."""
    copy.free("DiaSource")
    copy.sql(
        "insert into DiaSource select s.* replace (diaSourceId + 100000 * n as diaSourceId) "
        "from DiaSource s, range(1, 11) r(n) where not isSubThreshold"
    )


@defect("all-dipoles", "AG-00-35/native/dipoles")
def all_dipoles(copy: Copy) -> None:
    """Call all sources dipoles."""
    copy.everywhere("DiaSource", "isDipole = true")


def _in_view(copy: Copy, view: str, change: str, where: str = "true") -> None:
    """Let a view show something else than it did."""
    copy.sql(
        f"alter view {view} rename to {view}_before",
        f"create view {view} as select * replace ({change}) from {view}_before where {where}",
    )
