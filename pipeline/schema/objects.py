"""Objects made of difference-image detections, and their neighbours in the deep catalogue."""

# ruff: noqa: E501 -- one line per column reads better than any wrapping

from __future__ import annotations

from pipeline.schema.columns import Table, parse

__all__ = ["DIA_OBJECT", "DIA_OBJECT_HISTORY", "DIA_OBJECT_LAST", "DIA_OBJECT_TO_OBJECT_MATCH"]

_DIA_OBJECT = """
diaObjectId*     | i64  |         | meta.id;meta.main           | 0271 | unique number: that of the object's first source
validityStartMjdTai* | f64 | d    | time.processing             | 0388 | when this version of the row was made, TAI
validityEndMjdTai | f64 | d       | time.processing             | 0388 | when it was superseded; NULL for the current version
ra*              | f64  | deg     | pos.eq.ra;meta.main         | 0272 | mean right ascension of the sources, ICRS; weights 1/(C + (10 mas)²)
raErr            | f32  | deg     | stat.error;pos.eq.ra        | 0272 | its error, times cos(dec)
dec*             | f64  | deg     | pos.eq.dec;meta.main        | 0272 | mean declination of the sources, ICRS; weights 1/(C + (10 mas)²)
decErr           | f32  | deg     | stat.error;pos.eq.dec       | 0272 | its error
ra_dec_Cov       | f32  | deg**2  | stat.covariance             | 0333 | covariance of ra cos(dec) and dec
{b}_psfFluxMean  | f32  | nJy     | phot.flux;stat.mean         | 0272 | inverse-variance mean of psfFlux in {b}
{b}_psfFluxMeanErr | f32 | nJy    | stat.error;phot.flux        | 0272 | its error from the sources' errors
{b}_psfFluxSigma | f32  | nJy     | stat.stdev;phot.flux        | 0272 | standard deviation of psfFlux in {b} (n - 1)
{b}_psfFluxNdata* | i32 |         | meta.number                 | 0272 | sources in {b} with a psfFlux, in the year before lastDiaSourceMjdTai; all psfFlux, scienceFlux and period columns are of that year
{b}_fpFluxMean   | f32  | nJy     | phot.flux;stat.mean         | 0272 | inverse-variance mean of the forced fluxes in {b}
{b}_fpFluxMeanErr | f32 | nJy     | stat.error;phot.flux        | 0272 | its error
{b}_scienceFluxMean | f32 | nJy   | phot.flux;stat.mean         | 0272 | inverse-variance mean of scienceFlux in {b}
{b}_scienceFluxMeanErr | f32 | nJy | stat.error;phot.flux       | 0272 | its error
{b}_psfFluxMin   | f32  | nJy     | phot.flux;stat.min          | 0272 | faintest psfFlux in {b}
{b}_psfFluxMax   | f32  | nJy     | phot.flux;stat.max          | 0272 | brightest psfFlux in {b}
{b}_psfFluxMaxSlope | f32 | nJy.d**-1 | phot.flux;stat.max      | 0272 | steepest rise between successive epochs in {b}
{b}_psfFluxErrMean | f32 | nJy    | stat.error;phot.flux         | 0272 | mean of the errors of psfFlux in {b}
firstDiaSourceMjdTai | f64 | d    | time.epoch                  | 0272 | epoch of the first source, TAI
lastDiaSourceMjdTai | f64 | d     | time.epoch                  | 0272 | epoch of the latest source, TAI
nDiaSources*     | i32  |         | meta.number                 | 0271 | associated sources
"""

_DIA_OBJECT_ADDED = """
radecMjdTai      | f64  | d       | time.epoch                  | 0272 | epoch of ra and dec where proper motion is fitted, else of the mean
pmRa             | f32  | mas.yr**-1 | pos.pm;pos.eq.ra         | 0272 | proper motion in right ascension, times cos(dec)
pmRaErr          | f32  | mas.yr**-1 | stat.error;pos.pm        | 0272 | its error
pmDec            | f32  | mas.yr**-1 | pos.pm;pos.eq.dec        | 0272 | proper motion in declination
pmDecErr         | f32  | mas.yr**-1 | stat.error;pos.pm        | 0272 | its error
parallax         | f32  | mas     | pos.parallax.trig           | 0272 | trigonometric parallax
parallaxErr      | f32  | mas     | stat.error;pos.parallax.trig | 0272 | its error
ra_pmRa_Cov      | f32  | deg.mas.yr**-1 | stat.covariance      | 0333 | covariance of ra cos(dec) and pmRa in the joint fit
ra_pmDec_Cov     | f32  | deg.mas.yr**-1 | stat.covariance      | 0333 | covariance of ra cos(dec) and pmDec
ra_parallax_Cov  | f32  | deg.mas | stat.covariance             | 0333 | covariance of ra cos(dec) and parallax
dec_pmRa_Cov     | f32  | deg.mas.yr**-1 | stat.covariance      | 0333 | covariance of dec and pmRa
dec_pmDec_Cov    | f32  | deg.mas.yr**-1 | stat.covariance      | 0333 | covariance of dec and pmDec
dec_parallax_Cov | f32  | deg.mas | stat.covariance             | 0333 | covariance of dec and parallax
pmRa_pmDec_Cov   | f32  | mas**2.yr**-2 | stat.covariance       | 0333 | covariance of the two proper motions
pmRa_parallax_Cov | f32 | mas**2.yr**-1 | stat.covariance       | 0333 | covariance of pmRa and parallax
pmDec_parallax_Cov | f32 | mas**2.yr**-1 | stat.covariance      | 0333 | covariance of pmDec and parallax
pmParallaxLnL    | f32  |         | stat.likelihood             | 0272 | ln likelihood of the joint fit of position, proper motion and parallax
pmParallaxChi2   | f32  |         | stat.fit.chi2               | 0331 | χ² of that fit
pmParallaxNdata  | i32  |         | meta.number                 | 0331 | epochs in that fit
{b}_psfFluxChi2  | f32  |         | stat.fit.chi2               | 0331 | χ² of psfFlux in {b} against its mean
{b}_psfFluxSkew  | f32  |         | stat.param                  | 0272 | skewness of psfFlux in {b}, bias-corrected (n ≥ 3)
{b}_psfFluxMAD   | f32  | nJy     | stat.param                  | 0272 | median absolute deviation of psfFlux in {b} from its median
{b}_psfFluxPercentile05 | f32 | nJy | stat.param                | 0272 | 5th percentile of psfFlux in {b}
{b}_psfFluxPercentile25 | f32 | nJy | stat.param                | 0272 | 25th percentile
{b}_psfFluxPercentile50 | f32 | nJy | phot.flux;stat.median | 0272 | median
{b}_psfFluxPercentile75 | f32 | nJy | stat.param                | 0272 | 75th percentile
{b}_psfFluxPercentile95 | f32 | nJy | stat.param                | 0272 | 95th percentile
{b}_psfFluxStetsonJ | f32 |       | stat.param                  | 0272 | Stetson's J of psfFlux in {b}, single band
{b}_psfFluxStetsonK | f32 |       | stat.param                  | 0272 | Stetson's K of psfFlux in {b}, 0.798 for a Gaussian
{b}_psfFluxLinearSlope | f32 | nJy.d**-1 | stat.fit.param       | 0272 | slope of a weighted straight line through psfFlux in {b}
{b}_psfFluxLinearSlopeErr | f32 | nJy.d**-1 | stat.error        | 0272 | its error
{b}_fpFluxSigma  | f32  | nJy     | stat.stdev;phot.flux        | 0272 | standard deviation of the forced fluxes in {b} (n - 1)
{b}_fpFluxNdata  | i32  |         | meta.number                 | 0272 | forced fluxes in {b}
{b}_scienceFluxSigma | f32 | nJy  | stat.stdev;phot.flux        | 0272 | standard deviation of scienceFlux in {b} (n - 1)
{b}_scienceFluxNdata | i32 |      | meta.number                 | 0272 | sources in {b} with a scienceFlux, in that year
{b}_period       | f32  | d       | time.period                 | 0272 | best period in {b} from a floating-mean Lomb-Scargle periodogram
{b}_periodPower  | f32  |         | stat.param                  | 0272 | its power, 0 to 1
{b}_periodLogFap | f32  |         | stat.probability            | 0272 | log10 of the chance that noise has a higher peak
flags            | i64  |         | meta.code                   | 0272 | 1 any source flagged, 2 any near an edge, 4 any saturated, 8 any dipole, 16 any streak or glint, 32 any injected, 64 a single source, 128 position errors enlarged because the sources scatter more than their errors allow
"""

_DIA_OBJECT_LAST = """
diaObjectId*     | i64  |         | meta.id;meta.main           | 0271 | the object
validityStartMjdTai* | f64 | d    | time.processing             | 0388 | when its latest version was made, TAI
lastDiaSourceMjdTai | f64 | d     | time.epoch                  | 0272 | epoch of the latest source, TAI
ra*              | f64  | deg     | pos.eq.ra;meta.main         | 0272 | right ascension, ICRS
raErr            | f32  | deg     | stat.error;pos.eq.ra        | 0272 | its error, times cos(dec)
dec*             | f64  | deg     | pos.eq.dec;meta.main        | 0272 | declination, ICRS
decErr           | f32  | deg     | stat.error;pos.eq.dec       | 0272 | its error
ra_dec_Cov       | f32  | deg**2  | stat.covariance             | 0333 | covariance of ra cos(dec) and dec
firstDiaSourceMjdTai | f64 | d    | time.epoch                  | 0272 | epoch of the first source, TAI
nDiaSources*     | i32  |         | meta.number                 | 0271 | associated sources
"""

_MATCH = """
diaObjectId*     | i64  |         | meta.id.assoc               | 0271 | the object
objectId*        | i64  |         | meta.id.cross               | 0271 | a nearby entry of the deep catalogue
dist             | f32  | arcsec  | pos.angDistance             | 0271 | distance between the two
lnP              | f32  |         | stat.probability            | 0271 | ln probability that they are the same
"""

_MATCH_ADDED = """
objectType       | str  |         | src.class.starGalaxy        | 0271 | star or galaxy
rank             | i16  |         | meta.number                 | 0271 | 1 for the nearest of its type
"""

DIA_OBJECT = Table(
    "DiaObject",
    parse(_DIA_OBJECT) + parse(_DIA_OBJECT_ADDED, added=True),
    ("diaObjectId",),
    "The current state of one astrophysical object, computed from all of its sources.",
)

DIA_OBJECT_HISTORY = Table(
    "DiaObjectHistory",
    DIA_OBJECT.columns,
    ("diaObjectId", "validityStartMjdTai"),
    "A superseded state of an object.",
)

DIA_OBJECT_LAST = Table(
    "DiaObjectLast",
    parse(_DIA_OBJECT_LAST),
    ("diaObjectId",),
    "The few columns of the current objects that association needs.",
)

DIA_OBJECT_TO_OBJECT_MATCH = Table(
    "DiaObject_To_Object_Match",
    parse(_MATCH) + parse(_MATCH_ADDED, added=True),
    ("diaObjectId", "objectId"),
    "One of the three nearest stars or three nearest galaxies within 60 arcsec of an object.",
)
