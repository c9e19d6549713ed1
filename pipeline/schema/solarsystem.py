"""Solar-system bodies: orbits, ephemerides, and the sources matched to them."""

# ruff: noqa: E501 -- one line per column reads better than any wrapping

from __future__ import annotations

from pipeline.schema.columns import Table, parse

__all__ = ["MPC_ORBITS", "SS_EPHEMERIS", "SS_OBJECT", "SS_SOURCE"]

_SS_OBJECT = """
ssObjectId*      | i64  |         | meta.id;meta.main           | 0273 | unique number of the body
designation      | str  |         | meta.id                     | 0273 | its unpacked provisional designation
nObs*            | i32  |         | meta.number                 | 0273 | sources of the survey
arc*             | f32  | d       | time.duration               | 0273 | time between first and last of them
firstObservationMjdTai | f64 | d  | time.epoch                  | 0273 | epoch of the first, TAI
MOIDEarth        | f32  | AU      | pos.distance                | 0273 | least distance between its orbit and the Earth's
MOIDEarthDeltaV  | f32  | km.s**-1 | phys.veloc                 | 0273 | speed relative to the Earth there
MOIDEarthEclipticLongitude | f32 | deg | pos.ecliptic.lon        | 0273 | ecliptic longitude there
MOIDEarthTrueAnomaly | f32 | deg  | src.orbital                 | 0273 | true anomaly of the Earth there
MOIDEarthTrueAnomalyObject | f32 | deg | src.orbital             | 0273 | true anomaly of the body there
tisserand_J      | f32  |         | src.orbital.Tisserand       | 0273 | Tisserand parameter with respect to Jupiter
extendednessMax  | f32  |         | src.class.starGalaxy;stat.max | 0273 | largest extendedness of its sources
extendednessMedian | f32 |        | src.class.starGalaxy;stat.median | 0273 | median of it
extendednessMin  | f32  |         | src.class.starGalaxy;stat.min | 0273 | least of it
{b}_nObs*        | i32  |         | meta.number                 | 0273 | sources in {b}
{b}_H            | f32  | mag     | phys.magAbs                 | 0273 | absolute magnitude in {b}
{b}_HErr         | f32  | mag     | stat.error;phys.magAbs      | 0273 | its error
{b}_G12          | f32  |         | stat.fit.param              | 0273 | slope of the phase curve in {b}
{b}_G12Err       | f32  |         | stat.error                  | 0273 | its error
{b}_H_{b}_G12_Cov | f32 | mag     | stat.covariance             | 0333 | covariance of the two
{b}_nObsUsed*    | i32  |         | meta.number                 | 0273 | sources in the fit in {b}
{b}_Chi2         | f32  |         | stat.fit.chi2               | 0331 | χ² of the phase curve in {b}
{b}_phaseAngleMin | f32 | deg     | pos.phaseAng;stat.min       | 0323 | smallest phase angle in {b}
{b}_phaseAngleMax | f32 | deg     | pos.phaseAng;stat.max       | 0323 | largest phase angle in {b}
{b}_slope_fit_failed | bool |     | meta.code.error             | 0273 | G12 could not be fitted in {b}
"""

_SS_SOURCE = """
diaSourceId*     | i64  |         | meta.id;meta.main           | 0273 | the source
ssObjectId*      | i64  |         | meta.id.assoc               | 0273 | the body
designation      | str  |         | meta.id                     | 0273 | its designation
eclLambda*       | f64  | deg     | pos.ecliptic.lon            | 0273 | ecliptic longitude of the source
eclBeta*         | f64  | deg     | pos.ecliptic.lat            | 0273 | ecliptic latitude of the source
galLon*          | f64  | deg     | pos.galactic.lon            | 0273 | galactic longitude of the source
galLat*          | f64  | deg     | pos.galactic.lat            | 0273 | galactic latitude of the source
elongation       | f32  | deg     | pos.angDistance             | 0273 | angle to the Sun
phaseAngle       | f32  | deg     | pos.phaseAng                | 0323 | angle Sun-body-observer
topoRange        | f32  | AU      | pos.distance                | 0323 | distance to the observer
topoRangeRate    | f32  | km.s**-1 | phys.veloc                 | 0273 | its rate of change
helioRange       | f32  | AU      | pos.distance;pos.heliocentric | 0323 | distance to the Sun
helioRangeRate   | f32  | km.s**-1 | phys.veloc                 | 0273 | its rate of change
ephRa            | f64  | deg     | pos.eq.ra                   | 0273 | predicted right ascension
ephDec           | f64  | deg     | pos.eq.dec                  | 0273 | predicted declination
ephVmag          | f32  | mag     | phot.mag;em.opt.V           | 0273 | predicted V magnitude
ephRate          | f32  | deg.d**-1 | pos.pm                    | 0273 | predicted speed on the sky
ephRateRa        | f32  | deg.d**-1 | pos.pm;pos.eq.ra          | 0273 | along right ascension, times cos(dec)
ephRateDec       | f32  | deg.d**-1 | pos.pm;pos.eq.dec         | 0273 | along declination
ephOffset        | f32  | arcsec  | pos.angDistance             | 0273 | distance of the source from the prediction
ephOffsetRa      | f64  | arcsec  | pos.eq.ra;arith.diff        | 0273 | source minus prediction in right ascension, times cos(dec)
ephOffsetDec     | f64  | arcsec  | pos.eq.dec;arith.diff       | 0273 | source minus prediction in declination
ephOffsetAlongTrack | f32 | arcsec | pos.angDistance            | 0273 | component of the offset along the motion
ephOffsetCrossTrack | f32 | arcsec | pos.angDistance            | 0273 | component across the motion, positive to its left
helio_x          | f32  | AU      | pos.cartesian.x;pos.heliocentric | 0273 | heliocentric position, ICRS, when the light left
helio_y          | f32  | AU      | pos.cartesian.y;pos.heliocentric | 0273 | same
helio_z          | f32  | AU      | pos.cartesian.z;pos.heliocentric | 0273 | same
helio_vx         | f32  | km.s**-1 | phys.veloc;pos.heliocentric | 0273 | heliocentric velocity
helio_vy         | f32  | km.s**-1 | phys.veloc;pos.heliocentric | 0273 | same
helio_vz         | f32  | km.s**-1 | phys.veloc;pos.heliocentric | 0273 | same
helio_vtot       | f32  | km.s**-1 | phys.veloc;pos.heliocentric | 0273 | its modulus, all three components
topo_x           | f32  | AU      | pos.cartesian.x             | 0273 | position with respect to the observer, ICRS
topo_y           | f32  | AU      | pos.cartesian.y             | 0273 | same
topo_z           | f32  | AU      | pos.cartesian.z             | 0273 | same
topo_vx          | f32  | km.s**-1 | phys.veloc                 | 0273 | velocity with respect to the observer
topo_vy          | f32  | km.s**-1 | phys.veloc                 | 0273 | same
topo_vz          | f32  | km.s**-1 | phys.veloc                 | 0273 | same
topo_vtot        | f32  | km.s**-1 | phys.veloc                 | 0273 | its modulus, all three components
diaDistanceRank  | i16  |         | meta.number                 | 0273 | rank of the source by distance from the prediction
"""

# Element, unit, meaning; each has a column of its own and one for its uncertainty.
_ELEMENTS = """
a             | AU             | semi-major axis
q             | AU             | perihelion distance
e             |                | eccentricity
i             | deg            | inclination
node          | deg            | longitude of the ascending node
argperi       | deg            | argument of perihelion
peri_time     | d              | time of perihelion passage
yarkovsky     | 1e-10.AU.d**-2 | Yarkovsky acceleration
srp           | m**2.Mg**-1    | area-to-mass ratio for radiation pressure
a1            | m**2.Mg**-1    | radial non-gravitational acceleration
a2            | m**2.Mg**-1    | transverse non-gravitational acceleration
a3            | m**2.Mg**-1    | normal non-gravitational acceleration
dt            |                | delay of the non-gravitational acceleration
mean_anomaly  | deg            | mean anomaly
period        | d              | orbital period
mean_motion   | deg.d**-1      | mean motion
"""


def _elements(suffix: str, prefix: str, ucd: str) -> str:
    lines = []
    for line in _ELEMENTS.strip().splitlines():
        name, unit, text = (f.strip() for f in line.split("|"))
        lines.append(f"{name}{suffix} | f64 | {unit} | {ucd} | 0273 | {prefix}{text}")
    return "\n".join(lines)


_MPC_ORBITS = f"""
id*              | i32  |         | meta.id;meta.main           | 0273 | running number of the row
designation*     | str  |         | meta.id                     | 0273 | provisional designation, key to SSObject
packed_primary_provisional_designation* | str | | meta.id        | 0273 | packed designation
unpacked_primary_provisional_designation* | str | | meta.id      | 0273 | unpacked designation
mpc_orb_jsonb    | str  |         | meta.record                 | 0288 | the orbit as the Minor Planet Center's JSON document
created_at       | time |         | time.creation               | 0288 | creation of the row, UTC
updated_at       | time |         | time.processing             | 0288 | last change of the row, UTC
orbit_type_int   | i32  |         | meta.code;src.orbital       | 0273 | class of the orbit
u_param          | i32  |         | stat.error;src.orbital      | 0273 | uncertainty parameter, 0 best to 9
nopp             | i32  |         | meta.number                 | 0273 | oppositions
arc_length_total | f64  | d       | time.duration               | 0273 | arc of all observations
arc_length_sel   | f64  | d       | time.duration               | 0273 | arc of the observations used
nobs_total       | i32  |         | meta.number                 | 0273 | observations
nobs_total_sel   | i32  |         | meta.number                 | 0273 | observations used
{_elements("", "", "src.orbital")}
{_elements("_unc", "uncertainty of the ", "stat.error;src.orbital")}
epoch_mjd        | f64  | d       | time.epoch                  | 0273 | epoch of the elements, MJD (TT)
h                | f64  | mag     | phys.magAbs                 | 0273 | absolute magnitude
g                | f64  |         | stat.fit.param              | 0273 | slope parameter
not_normalized_rms | f64 | arcsec | stat.fit.residual           | 0273 | rms residual
normalized_rms   | f64  |         | stat.fit.residual           | 0273 | rms residual in units of the errors
earth_moid       | f64  | AU      | pos.distance                | 0273 | least distance between its orbit and the Earth's
fitting_datetime | time |         | time.processing             | 0288 | when the orbit was fitted, UTC
"""

_SS_EPHEMERIS = """
ssObjectId*      | i64  |         | meta.id                     | 0288 | the body
designation      | str  |         | meta.id                     | 0288 | its designation
mjdTai*          | f64  | d       | time.epoch                  | 0288 | epoch of the node, TAI
ra*              | f64  | deg     | pos.eq.ra;meta.main         | 0288 | astrometric right ascension seen from the telescope, ICRS
dec*             | f64  | deg     | pos.eq.dec;meta.main        | 0288 | astrometric declination
raRate           | f64  | deg.d**-1 | pos.pm;pos.eq.ra          | 0288 | motion in right ascension, times cos(dec)
decRate          | f64  | deg.d**-1 | pos.pm;pos.eq.dec         | 0288 | motion in declination
vMag             | f32  | mag     | phot.mag;em.opt.V           | 0288 | V magnitude
heliocentricDistance | f64 | AU   | pos.distance;pos.heliocentric | 0323 | distance to the Sun
topocentricDistance | f64 | AU    | pos.distance                | 0323 | distance to the observer
phaseAngle       | f32  | deg     | pos.phaseAng                | 0323 | angle Sun-body-observer
"""

SS_OBJECT = Table(
    "SSObject",
    parse(_SS_OBJECT),
    ("ssObjectId",),
    "A solar-system body with its phase curve and close approaches.",
)

SS_SOURCE = Table(
    "SSSource",
    parse(_SS_SOURCE),
    ("diaSourceId",),
    "What the ephemeris says about a source matched to a solar-system body.",
)

MPC_ORBITS = Table(
    "mpc_orbits",
    parse(_MPC_ORBITS),
    ("id",),
    "An orbit, in the columns of the Minor Planet Center's table.",
)

SS_EPHEMERIS = Table(
    "ss_ephemeris",
    parse(_SS_EPHEMERIS, added=True),
    ("ssObjectId", "mjdTai"),
    "The predicted position of a body at one node, one hour or less from the next.",
)
