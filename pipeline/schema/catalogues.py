"""Catalogues that come from outside, and the truth of a simulation."""

# ruff: noqa: E501 -- one line per column reads better than any wrapping

from __future__ import annotations

from pipeline.schema.columns import Table, parse

__all__ = ["OBJECT", "REFCAT", "TRUTH_OBJECT", "TRUTH_VISIT"]

_FLUXES = """
{b}Flux          | f32  | nJy     | phot.flux;em.opt            | {r} | flux in {b}, AB
{b}FluxErr       | f32  | nJy     | stat.error;phot.flux        | {r} | its error
"""

_REFCAT = f"""
objectId*        | i64  |         | meta.id;meta.main           | 0030 | number in the catalogue
ra*              | f64  | deg     | pos.eq.ra;meta.main         | 0030 | right ascension at the epoch, ICRS
dec*             | f64  | deg     | pos.eq.dec;meta.main        | 0030 | declination at the epoch, ICRS
raErr            | f32  | mas     | stat.error;pos.eq.ra        | 0030 | error of ra, times cos(dec)
decErr           | f32  | mas     | stat.error;pos.eq.dec       | 0030 | error of dec
pmRa             | f32  | mas.yr**-1 | pos.pm;pos.eq.ra         | 0030 | proper motion in right ascension, times cos(dec)
pmDec            | f32  | mas.yr**-1 | pos.pm;pos.eq.dec        | 0030 | proper motion in declination
parallax         | f32  | mas     | pos.parallax.trig           | 0030 | parallax
epochMjdTai      | f64  | d       | time.epoch                  | 0030 | epoch of ra and dec, TAI
{_FLUXES.replace("{r}", "0029").strip()}
"""

_OBJECT = f"""
objectId*        | i64  |         | meta.id;meta.main           | 0271 | number in the deep catalogue
ra*              | f64  | deg     | pos.eq.ra;meta.main         | 0271 | right ascension, ICRS
dec*             | f64  | deg     | pos.eq.dec;meta.main        | 0271 | declination, ICRS
raErr            | f32  | mas     | stat.error;pos.eq.ra        | 0271 | error of ra, times cos(dec)
decErr           | f32  | mas     | stat.error;pos.eq.dec       | 0271 | error of dec
objectType*      | str  |         | src.class.starGalaxy        | 0271 | star or galaxy
radius           | f32  | arcsec  | phys.angSize                | 0271 | half-light radius; 0 for stars
{_FLUXES.replace("{r}", "0271").strip()}
"""

_TRUTH_OBJECT = """
truthId*         | i64  |         | meta.id;meta.main           |      | number of the simulated thing
kind*            | str  |         | meta.code.class             |      | for example star, galaxy, supernova, variable, agn, flare or asteroid
ra*              | f64  | deg     | pos.eq.ra;meta.main         |      | right ascension at the reference epoch
dec*             | f64  | deg     | pos.eq.dec;meta.main        |      | declination at the reference epoch
{b}Flux          | f64  | nJy     | phot.flux;em.opt            |      | constant or mean flux in {b}
pmRa             | f64  | mas.yr**-1 | pos.pm;pos.eq.ra         |      | proper motion in right ascension, times cos(dec)
pmDec            | f64  | mas.yr**-1 | pos.pm;pos.eq.dec        |      | proper motion in declination
parallax         | f64  | mas     | pos.parallax.trig           |      | parallax
radius           | f64  | arcsec  | phys.angSize                |      | half-light radius
sersicIndex      | f64  |         | src.morph.param            |      | Sérsic index
axisRatio        | f64  |         | src.morph.param             |      | minor over major axis
positionAngle    | f64  | deg     | pos.posAng                  |      | of the major axis, north through east
hostId           | i64  |         | meta.id.assoc               |      | truthId of the host galaxy
hostOffset       | f64  | arcsec  | pos.angDistance             |      | distance from its centre
ssObjectId       | i64  |         | meta.id.assoc               |      | body of the ephemeris
objectId         | i64  |         | meta.id.cross               |      | number in refcat and object catalogue
period           | f64  | d       | time.period                 |      | period
amplitude        | f64  |         | src.var.amplitude           |      | half the peak-to-peak variation over the mean
peakMjdTai       | f64  | d       | time.epoch                  |      | epoch of maximum, TAI
peakFlux         | f64  | nJy     | phot.flux;em.opt            |      | flux at maximum
redshift         | f64  |         | src.redshift                |      | redshift
"""

_TRUTH_VISIT = """
truthId*         | i64  |         | meta.id                     |      | the simulated thing
visit*           | i64  |         | meta.id;obs.image           |      | exposure number
detector*        | i16  |         | meta.id;instr.det           |      | CCD number
x*               | f64  | pixel   | pos.cartesian.x;instr.det   |      | true column on the trimmed image
y*               | f64  | pixel   | pos.cartesian.y;instr.det   |      | true row
ra*              | f64  | deg     | pos.eq.ra                   |      | true right ascension at the midpoint
dec*             | f64  | deg     | pos.eq.dec                  |      | true declination at the midpoint
flux*            | f64  | nJy     | phot.flux;em.opt            |      | true flux in this exposure, above the atmosphere
fluxElectrons    | f64  | electron | phot.count                 |      | expected electrons
trailLength      | f64  | arcsec  | phys.angSize                |      | length of its trail
trailAngle       | f64  | deg     | pos.posAng                  |      | bearing of the trail, north through east
saturated        | bool |         | meta.code.qual              |      | whether it saturates
band             | str  |         | instr.bandpass              |      | filter, one letter
midpointMjdTai   | f64  | d       | time.epoch                  |      | middle of the exposure, TAI
"""

REFCAT = Table(
    "refcat",
    parse(_REFCAT, added=True),
    ("objectId",),
    "A star with known position and flux.",
)

OBJECT = Table(
    "object",
    parse(_OBJECT, added=True),
    ("objectId",),
    "A star or galaxy of the deep catalogue.",
)

TRUTH_OBJECT = Table(
    "truth_object",
    parse(_TRUTH_OBJECT, added=True),
    ("truthId",),
    "Something that was simulated.",
)

TRUTH_VISIT = Table(
    "truth_visit",
    parse(_TRUTH_VISIT, added=True),
    ("truthId", "visit", "detector"),
    "Where something simulated was in one exposure of one detector, and how bright.",
)
