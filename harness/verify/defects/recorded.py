"""Defects of what rows say of exposures, shapes, bodies and versions, alike wherever they stand."""

from __future__ import annotations

from harness.verify.copy import Copy
from harness.verify.defect import defect, graded
from pipeline.statistics import GAUSS_FWHM

__all__: list[str] = []

_RECORD = "AG-00-10/record"
_FIRST = "(select min(visit) from visit_image)"
_BAND = "(select min(band) from visit_image)"


@graded("late-images", f"{_RECORD}/exposure", 35.0, 1.0, faint=0.001)
def late_images(copy: Copy, amount: float) -> None:
    """Date all visit images {} s later in the catalogue, as by another time scale."""
    copy.sql(f"update visit_image set midpointMjdTai = midpointMjdTai + {amount} / 86400")


@defect("airmass-of-another-visit", f"{_RECORD}/exposure")
def airmass_of_another_visit(copy: Copy) -> None:
    """Give the images of the first visit the largest airmass of all."""
    copy.sql(
        "update visit_image set airmass = (select max(airmass) + 0.01 from visit_image) "
        f"where visit = {_FIRST}"
    )


@graded("other-zero-point", f"{_RECORD}/cards", 0.3, -0.01, faint=1e-8)
def other_zero_point(copy: Copy, amount: float) -> None:
    """Record zero points that are {} mag fainter than those of the files."""
    copy.sql(f"update visit_image set zeroPoint = zeroPoint + {amount}")


@defect("exchanged-corners", f"{_RECORD}/corners")
def exchanged_corners(copy: Copy) -> None:
    """Exchange the right ascensions of two opposite corners of all visit images."""
    copy.sql("update visit_image set llcra = urcra, urcra = llcra")


@defect("sigma-for-width", f"{_RECORD}/width")
def sigma_for_width(copy: Copy) -> None:
    """Give σ for the width at half maximum of the images of one band."""
    copy.sql(f"update visit_image set psfFwhm = psfFwhm / {GAUSS_FWHM} where band = {_BAND}")


@defect("sigma-for-difference-width", "AG-00-15/psf/width")
def sigma_for_difference_width(copy: Copy) -> None:
    """Give σ for the width at half maximum of the differences of one band."""
    copy.sql(f"update difference_image set psfFwhm = psfFwhm / {GAUSS_FWHM} where band = {_BAND}")


@graded("deeper-images", f"{_RECORD}/depth", 0.4, -0.4, faint=0.02)
def deeper_images(copy: Copy, amount: float) -> None:
    """Make all visit images {} mag deeper than they are."""
    copy.sql(f"update visit_image set depth5 = depth5 + {amount}")


@graded("deeper-differences", "AG-00-15/noise/depth", 0.3, -0.3, faint=0.02)
def deeper_differences(copy: Copy, amount: float) -> None:
    """Make all differences {} mag deeper than they are."""
    copy.sql(f"update difference_image set depth5 = depth5 + {amount}")


@defect("turned-right-ascension", "AG-00-20/attributes/conventions")
def turned_right_ascension(copy: Copy) -> None:
    """Count the right ascensions of all sources from -180 to 180 degrees or below."""
    copy.everywhere("DiaSource", "ra = ra - 360")


@defect("zeros-for-nulls", "AG-00-20/attributes/conventions")
def zeros_for_nulls(copy: Copy) -> None:
    """Give sources without a trail one of length and flux zero."""
    copy.everywhere("DiaSource", "trailLength = 0, trailFlux = 0", "trailLength is null")


@defect("exposure-of-another-visit", "AG-00-20/attributes/exposure")
def exposure_of_another_visit(copy: Copy) -> None:
    """Give the sources of the first visit another exposure time."""
    copy.everywhere(
        "DiaSource", "exposureTime = exposureTime + 16", f"visit = {copy.science[0].visit}"
    )


@defect("bearings-from-east", "AG-00-20/attributes/bearings")
def bearings_from_east(copy: Copy) -> None:
    """Count the bearings of trails from east through north."""
    turned = "case when trailAngle > 0 then 90 - trailAngle else -90 - trailAngle end"
    copy.everywhere("DiaSource", f"trailAngle = {turned}")


@graded("significance-scale", "AG-00-20/pixels/significance", 0.05, -0.05, faint=0.001)
def significance_scale(copy: Copy, amount: float) -> None:
    """Make the significance of all sources larger by a share of {}."""
    copy.everywhere("DiaSource", f"snr = {1 + amount} * snr")


@graded("science-flux-scale", "AG-00-20/pixels/science-flux", 0.03, -0.03, faint=0.001)
def science_flux_scale(copy: Copy, amount: float) -> None:
    """Make all forced fluxes on visit images larger by a share of {}."""
    copy.everywhere("DiaForcedSource", f"scienceFlux = {1 + amount} * scienceFlux")


@defect("template-in-science-flux", "AG-00-20/pixels/source-science-flux")
def template_in_science_flux(copy: Copy) -> None:
    """Count a thirtieth of the flux on the template twice in the fluxes on visit images."""
    change = "templateFlux = 1.03 * templateFlux, scienceFlux = scienceFlux + 0.03 * templateFlux"
    copy.everywhere("DiaSource", change)


@defect("turned-dipoles", "AG-00-20/pixels/dipoles")
def turned_dipoles(copy: Copy) -> None:
    """Let dipoles point from their positive to their negative lobe."""
    turned = "case when dipoleAngle > 0 then dipoleAngle - 180 else dipoleAngle + 180 end"
    copy.everywhere("DiaSource", f"dipoleAngle = {turned}")


@defect("covariance-sign", "AG-00-20/pixels/axes")
def covariance_sign(copy: Copy) -> None:
    """Turn the sign of the covariance of right ascension and declination round."""
    copy.everywhere("DiaSource", "ra_dec_Cov = -ra_dec_Cov")


@defect("bands-exchanged", "AG-00-25/forced/exposure")
def bands_exchanged(copy: Copy) -> None:
    """Let the forced sources of one visit be of another band."""
    copy.everywhere(
        "DiaForcedSource",
        "band = case band when 'g' then 'r' else 'g' end",
        f"visit = {copy.science[0].visit}",
    )


@defect("limits-inverted", "AG-00-25/forced/exposure")
def limits_inverted(copy: Copy) -> None:
    """Call detections limits and limits detections."""
    copy.everywhere("DiaForcedSource", "isUpperLimit = not isUpperLimit")


@defect("matches-in-arcmin", "AG-00-25/membership/matches")
def matches_in_arcmin(copy: Copy) -> None:
    """Give the distances of matched stars and galaxies in arcminutes."""
    copy.sql("update DiaObject_To_Object_Match set dist = dist / 60")


@defect("exchanged-ranges", "AG-00-25/membership/bodies")
def exchanged_ranges(copy: Copy) -> None:
    """Exchange the distances of bodies from the Sun and from the observer."""
    copy.sql("update SSSource set helioRange = topoRange, topoRange = helioRange")


@graded("scatter-scale", "AG-00-25/summaries/spread", 0.05, -0.05, faint=1e-5)
def scatter_scale(copy: Copy, amount: float) -> None:
    """Make the scatter of the fluxes of all objects larger by a share of {}."""
    terms = (f"{b}_psfFluxSigma = {1 + amount!r} * {b}_psfFluxSigma" for b in "ugrizy")
    copy.sql(f"update DiaObject set {', '.join(terms)}")


@defect("slopes-per-second", "AG-00-25/summaries/spread")
def slopes_per_second(copy: Copy) -> None:
    """Give the steepest rise of objects per second."""
    terms = (f"{b}_psfFluxMaxSlope = {b}_psfFluxMaxSlope / 86400" for b in "ugrizy")
    copy.sql(f"update DiaObject set {', '.join(terms)}")


@defect("science-mean-of-the-difference", "AG-00-25/summaries/spread")
def science_mean_of_the_difference(copy: Copy) -> None:
    """Give the mean flux on the difference for that on the visit images."""
    terms = (f"{b}_scienceFluxMean = {b}_psfFluxMean" for b in "ugrizy")
    copy.sql(f"update DiaObject set {', '.join(terms)}")


@defect("stale-latest", "AG-00-25/summaries/latest")
def stale_latest(copy: Copy) -> None:
    """Let the rows of latest values of objects be those before the last source."""
    copy.sql("update DiaObjectLast set nDiaSources = greatest(nDiaSources - 1, 0)")


@defect("turned-objects", "AG-00-25/summaries/conventions")
def turned_objects(copy: Copy) -> None:
    """Count the right ascensions of all objects from -180 to 180 degrees or below."""
    copy.sql("update DiaObject set ra = ra - 360")


@defect("template-epochs-in-utc", "AG-00-15/provenance/template-epochs")
def template_epochs_in_utc(copy: Copy) -> None:
    """Give the epochs of the inputs of templates in UTC."""
    copy.sql("update template_input set midpointMjdTai = midpointMjdTai - 35.0 / 86400")


@defect("processed-in-utc", "AG-00-20/epoch/processed")
def processed_in_utc(copy: Copy) -> None:
    """Give the times at which sources were made in UTC."""
    copy.everywhere("DiaSource", "timeProcessedMjdTai = timeProcessedMjdTai - 37.0 / 86400")
