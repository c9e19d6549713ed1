"""Defects of the catalogue: identities, membership, fluxes, epochs, summaries."""

from __future__ import annotations

from harness.verify.copy import Copy
from harness.verify.defect import defect

__all__: list[str] = []

_WHERE = "not isSubThreshold and diaObjectId is not null"
_ONE = f"(select diaSourceId from DiaSource where {_WHERE} limit 1)"


@defect("duplicate-objects", "AG-00-25/unique/objects")
def duplicate_objects(copy: Copy) -> None:
    """Let an object occur twice."""
    copy.free("DiaObject")
    copy.sql("insert into DiaObject select * from DiaObject limit 1")


@defect("duplicate-sources", "AG-00-25/unique/sources")
def duplicate_sources(copy: Copy) -> None:
    """Let a source occur twice."""
    copy.free("DiaSource")
    copy.sql("insert into DiaSource select * from DiaSource limit 1")


@defect("misnumbered-sources", "AG-00-25/unique/packed")
def misnumbered_sources(copy: Copy) -> None:
    """Give every source a number of the next detector."""
    copy.free("DiaSource")
    copy.sql("update DiaSource set diaSourceId = diaSourceId + (16::bigint << 21)")


@defect("constant-counts", "AG-00-25/counts/equals-children")
def constant_counts(copy: Copy) -> None:
    """Set every nDiaSources to 1, as in 2017."""
    copy.sql("update DiaObject set nDiaSources = 1")


@defect("nan-fluxes", "AG-00-20/attributes/psf-flux-present")
def nan_fluxes(copy: Copy) -> None:
    """Put NaN into the fluxes of ten sources."""
    copy.sql(
        "update DiaSource set psfFlux = 'nan' where diaSourceId in ("
        "select diaSourceId from DiaSource where not isSubThreshold and not psfFlux_flag "
        "and not centroid_flag limit 10)"
    )


@defect("empty-column", "AG-00-20/attributes/matrix")
def empty_column(copy: Copy) -> None:
    """Empty the column of the template background."""
    copy.sql("update DiaSource set templateBackground = null")


@defect("constant-column", "AG-00-20/attributes/matrix")
def constant_column(copy: Copy) -> None:
    """Give every source the same extendedness."""
    copy.sql("update DiaSource set extendedness = 0.5")


@defect("wrong-unit", "AG-00-20/flux-units/declared")
def wrong_unit(copy: Copy) -> None:
    """Declare the pixels of a difference to be electrons."""
    copy.sql(
        "update difference_image set unit = 'electron' where differenceImageId = "
        "(select min(differenceImageId) from difference_image)"
    )


@defect("wrong-scale", "AG-00-20/flux-units/scale")
def wrong_scale(copy: Copy) -> None:
    """Make all fluxes of the sources a quarter too large."""
    copy.sql("update DiaSource set psfFlux = 1.25 * psfFlux")


@defect("utc-for-tai", "AG-00-20/epoch/tai")
def utc_for_tai(copy: Copy) -> None:
    """Write UTC where TAI is meant."""
    copy.sql("update DiaSource set midpointMjdTai = midpointMjdTai - 35.0 / 86400")


@defect("clock-slip", "AG-00-20/epoch/clock")
def clock_slip(copy: Copy) -> None:
    """Let the clock be slow by TAI - UTC: bodies are farther along their tracks."""
    copy.sql("update SSSource set ephOffsetAlongTrack = ephOffsetAlongTrack + 35 * ephRate / 24")


@defect("wrong-sign", "AG-00-20/epoch/sign")
def wrong_sign(copy: Copy) -> None:
    """Turn the sign of all difference fluxes round."""
    copy.sql("update DiaSource set psfFlux = -psfFlux")


@defect("below-threshold", "AG-00-20/threshold/honoured")
def below_threshold(copy: Copy) -> None:
    """Let a source of SNR 4.2 pass as a detection."""
    copy.sql(f"update DiaSource set snr = 4.2 where diaSourceId = {_ONE}")


@defect("measured-twice", "AG-00-20/distinct/apart")
def measured_twice(copy: Copy) -> None:
    """Let a source of a detector lie a tenth of a pixel beside another."""
    copy.sql(
        "update DiaSource set x = a.x + 0.1, y = a.y from ("
        "select s.x, s.y, t.diaSourceId as other from DiaSource s "
        "join DiaSource t on s.visit = t.visit and s.detector = t.detector "
        "and s.diaSourceId < t.diaSourceId "
        "where not s.isSubThreshold and not t.isSubThreshold "
        "and not s.isDeblendParent and not t.isDeblendParent "
        "order by s.diaSourceId, other limit 1) a where diaSourceId = a.other"
    )


@defect("no-rule", "AG-00-20/threshold/reasons")
def no_rule(copy: Copy) -> None:
    """Forget why the peaks of the ledger were not accepted."""
    copy.sql("update candidate set rule = null where not accepted")


@defect("associated-faint", "AG-00-20/faint/kept-apart")
def associated_faint(copy: Copy) -> None:
    """Associate a sub-threshold source."""
    copy.sql(
        "update DiaSource set diaObjectId = (select min(diaObjectId) from DiaObject) "
        "where diaSourceId = (select diaSourceId from DiaSource where isSubThreshold limit 1)"
    )


@defect("no-fate", "AG-00-20/reliability/fate")
def no_fate(copy: Copy) -> None:
    """Forget what became of a source."""
    copy.sql("delete from alert where diaSourceId = (select min(diaSourceId) from alert)")


@defect("unexplained-reliability", "AG-00-20/reliability/stated")
def unexplained_reliability(copy: Copy) -> None:
    """Lose the reliability of a source."""
    copy.sql(f"update DiaSource set reliability = null where diaSourceId = {_ONE}")


@defect("old-classifier", "AG-00-20/reliability/version")
def old_classifier(copy: Copy) -> None:
    """Let the reliabilities of a visit come from an older model."""
    copy.sql(
        "update DiaSource set reliabilityVersion = '1.0' where visit = "
        "(select min(visit) from DiaSource)"
    )


@defect("wrong-cut", "AG-00-20/reliability/withheld")
def wrong_cut(copy: Copy) -> None:
    """Withhold the most reliable alert for its reliability, and announce the others."""
    copy.sql(
        "update alert set emitted = false, reason = 'reliability below the cut' where diaSourceId ="
        " (select diaSourceId from DiaSource join alert using (diaSourceId) where emitted "
        "order by reliability desc nulls last limit 1)"
    )


@defect("orphan", "AG-00-25/membership/exactly-one")
def orphan(copy: Copy) -> None:
    """Take a source away from its object."""
    copy.sql(f"update DiaSource set diaObjectId = null where diaSourceId = {_ONE}")


@defect("two-of-a-visit", "AG-00-25/membership/one-per-visit")
def two_of_a_visit(copy: Copy) -> None:
    """Give an object a second source of the same visit and detector."""
    copy.sql(
        "update DiaSource set diaObjectId = a.diaObjectId from ("
        "select s.diaObjectId, t.diaSourceId as other from DiaSource s "
        "join DiaSource t on s.visit = t.visit and s.detector = t.detector "
        "and s.diaSourceId < t.diaSourceId "
        "where s.diaObjectId is not null and t.diaObjectId is not null limit 1) a "
        "where diaSourceId = a.other"
    )


@defect("lost-object", "AG-00-25/membership/object-exists")
def lost_object(copy: Copy) -> None:
    """Delete an object that has sources."""
    copy.sql("delete from DiaObject where diaObjectId = (select min(diaObjectId) from DiaObject)")


@defect("wrong-mean", "AG-00-25/summaries/mean-flux")
def wrong_mean(copy: Copy) -> None:
    """Give objects of several sources the flux of the last one for the mean."""
    copy.sql(
        "update DiaObject set g_psfFluxMean = g_psfFluxMax, r_psfFluxMean = r_psfFluxMax "
        "where nDiaSources > 1"
    )


@defect("latest-position", "AG-00-25/summaries/position")
def latest_position(copy: Copy) -> None:
    """Move an object to where its latest source lies, as in 2017."""
    copy.sql("update DiaObject set dec = dec + 0.05 / 3600")


@defect("lost-forced", "AG-00-25/forced/every-visit")
def lost_forced(copy: Copy) -> None:
    """Drop the forced sources of one visit."""
    copy.sql("delete from DiaForcedSource where visit = (select max(visit) from DiaForcedSource)")


@defect("self-template", "AG-00-15/provenance/template-inputs")
def self_template(copy: Copy) -> None:
    """Let a template contain the visit that it is subtracted from."""
    copy.free("template_input")
    copy.sql(
        "update template_input set visit = (select min(visit) from difference_image) "
        "where visit = (select min(visit) from template_input)"
    )


@defect("wrong-weight", "AG-00-15/provenance/template-weights")
def wrong_weight(copy: Copy) -> None:
    """Halve the recorded weight of one input of every template."""
    copy.sql(
        "update template_input set weight = weight / 2 "
        "where visit = (select min(visit) from template_input)"
    )


@defect("silent-failure", "AG-00-05/campaign/failures-have-causes")
def silent_failure(copy: Copy) -> None:
    """Let a unit fail without a cause."""
    copy.sql(
        "update unit set status = 'failed', cause = null "
        "where rowid = (select min(rowid) from unit)"
    )


@defect("template-of-itself", "AG-00-15/provenance/template-inputs")
def template_of_itself(copy: Copy) -> None:
    """Let a science visit be an input of the template that is subtracted from it."""
    copy.sql(
        "update template_input set visit = v.visit, sha256 = v.sha256 "
        "from difference_image d join visit_image v using (visit, detector) "
        "where d.rowid = (select min(rowid) from difference_image) "
        "and template_input.templateId = d.templateId and template_input.visit = "
        "(select min(visit) from template_input i where i.templateId = d.templateId)"
    )


@defect("mean-of-one-band", "AG-00-25/summaries/mean-flux")
def mean_of_one_band(copy: Copy) -> None:
    """Make the mean fluxes of one band a twentieth too large."""
    copy.sql("update DiaObject set g_psfFluxMean = 1.05 * g_psfFluxMean")
