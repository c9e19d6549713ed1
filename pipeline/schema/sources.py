"""Detections on difference images, and forced measurements at known objects."""

# ruff: noqa: E501 -- one line per column reads better than any wrapping

from __future__ import annotations

from pipeline.schema.columns import Table, parse

__all__ = ["DIA_FORCED_SOURCE", "DIA_SOURCE"]

_DIA_SOURCE = """
diaSourceId*     | i64  |         | meta.id;meta.main           | 0292 | unique number: visit, detector and counter packed
visit*           | i64  |         | meta.id;obs.image           | 0269 | exposure number
detector*        | i16  |         | meta.id;instr.det           | 0269 | CCD number
diaObjectId      | i64  |         | meta.id.assoc               | 0285 | object the source belongs to; NULL for parents, sub-threshold rows and solar-system bodies
ssObjectId       | i64  |         | meta.id.assoc               | 0269 | solar-system body the source belongs to
parentDiaSourceId | i64 |         | meta.id.parent              | 0269 | source this one was deblended from
ssObjectReassocTimeMjdTai | f64 | d | time.processing            | 0286 | when the source moved from an object to a solar-system body
midpointMjdTai*  | f64  | d       | time.epoch                  | 0269 | middle of the exposure, TAI
exposureTime     | f32  | s       | time.duration;obs.exposure  | 0269 | open-shutter time
ra*              | f64  | deg     | pos.eq.ra;meta.main         | 0269 | right ascension of the centroid, ICRS
raErr            | f32  | deg     | stat.error;pos.eq.ra        | 0269 | its error, times cos(dec)
dec*             | f64  | deg     | pos.eq.dec;meta.main        | 0269 | declination of the centroid, ICRS
decErr           | f32  | deg     | stat.error;pos.eq.dec       | 0269 | its error
ra_dec_Cov       | f32  | deg**2  | stat.covariance             | 0333 | covariance of ra cos(dec) and dec
x*               | f32  | pixel   | pos.cartesian.x;instr.det   | 0269 | column of the centroid, centre of the first pixel is 0
xErr             | f32  | pixel   | stat.error;pos.cartesian.x  | 0269 | its error
y*               | f32  | pixel   | pos.cartesian.y;instr.det   | 0269 | row of the centroid
yErr             | f32  | pixel   | stat.error;pos.cartesian.y  | 0269 | its error
centroid_flag    | bool |         | meta.code.error             | 0269 | no centroid could be fitted; x and y are those of the peak
apFlux           | f32  | nJy     | phot.flux;em.opt            | 0269 | flux within 12 pixels on the difference
apFluxErr        | f32  | nJy     | stat.error;phot.flux        | 0269 | its error
apFlux_flag      | bool |         | meta.code.error             | 0269 | aperture flux failed
apFlux_flag_apertureTruncated | bool | | meta.code.error         | 0269 | the aperture reaches over the edge of the image
isNegative       | bool |         | meta.code                   | 0269 | detected as a deficit
snr              | f32  |         | stat.snr                    | 0269 | significance of the detection: matched filter over the noise of the source-free image, without sign
psfFlux          | f32  | nJy     | phot.flux;em.opt            | 0269 | flux of the PSF model on the difference
psfFluxErr       | f32  | nJy     | stat.error;phot.flux        | 0269 | its error, noise of the source included
psfLnL           | f32  |         | stat.likelihood             | 0269 | ln likelihood of the pixels given the PSF model
psfChi2          | f32  |         | stat.fit.chi2               | 0331 | χ² of the PSF model
psfNdata*        | i32  |         | meta.number                 | 0331 | pixels in that fit
psfFlux_flag     | bool |         | meta.code.error             | 0269 | PSF fit failed
psfFlux_flag_edge | bool |        | meta.code.error             | 0269 | too close to the edge for a full PSF
psfFlux_flag_noGoodPixels | bool | | meta.code.error            | 0269 | too few unmasked pixels for a PSF fit
trailFlux        | f32  | nJy     | phot.flux;em.opt            | 0269 | flux of the trailed-source model
trailFluxErr     | f32  | nJy     | stat.error;phot.flux        | 0269 | its error
trailRa          | f64  | deg     | pos.eq.ra                   | 0269 | right ascension of the middle of the trail
trailRaErr       | f32  | deg     | stat.error;pos.eq.ra        | 0269 | its error, times cos(dec)
trailDec         | f64  | deg     | pos.eq.dec                  | 0269 | declination of the middle of the trail
trailDecErr      | f32  | deg     | stat.error;pos.eq.dec       | 0269 | its error
trailLength      | f32  | arcsec  | phys.angSize                | 0269 | length of the trail
trailLengthErr   | f32  | arcsec  | stat.error;phys.angSize     | 0269 | its error
trailAngle       | f32  | deg     | pos.posAng                  | 0269 | bearing of the trail, north through east, -90 to 90
trailAngleErr    | f32  | deg     | stat.error;pos.posAng       | 0269 | its error
trailChi2        | f32  |         | stat.fit.chi2               | 0331 | χ² of the trail model
trailNdata*      | i32  |         | meta.number                 | 0331 | pixels in that fit
trailAlgorithm   | i32  |         | meta.code                   | 0269 | start of the fit: 1 moments of SDSS type, 2 of HSM type, 3 our own fit to the pixels
trail_flag_edge  | bool |         | meta.code.error             | 0269 | the trail reaches the edge of the image
trail_flag       | bool |         | meta.code.error             | 0269 | trail fit failed
dipoleMeanFlux   | f32  | nJy     | phot.flux;em.opt            | 0269 | mean of the absolute fluxes of the two lobes
dipoleMeanFluxErr | f32 | nJy     | stat.error;phot.flux        | 0269 | its error
dipoleFluxDiff   | f32  | nJy     | phot.flux;arith.diff        | 0269 | absolute flux of the positive lobe minus that of the negative one
dipoleFluxDiffErr | f32 | nJy     | stat.error;phot.flux        | 0269 | its error
dipoleLength     | f32  | arcsec  | pos.angDistance             | 0269 | separation of the lobes
dipoleAngle      | f32  | deg     | pos.posAng                  | 0269 | bearing from the negative to the positive lobe, north through east
dipoleChi2       | f32  |         | stat.fit.chi2               | 0331 | χ² of the dipole model
dipoleNdata*     | i32  |         | meta.number                 | 0331 | pixels in that fit
scienceFlux      | f32  | nJy     | phot.flux;em.opt            | 0269 | PSF flux on the visit image, forced at the centroid
scienceFluxErr   | f32  | nJy     | stat.error;phot.flux        | 0269 | its error
forced_PsfFlux_flag | bool |      | meta.code.error             | 0269 | forced photometry on visit image or template failed
forced_PsfFlux_flag_edge | bool | | meta.code.error             | 0269 | too close to the edge for forced photometry
forced_PsfFlux_flag_noGoodPixels | bool | | meta.code.error      | 0269 | too few unmasked pixels for forced photometry
templateFlux     | f32  | nJy     | phot.flux;em.opt            | 0269 | PSF flux on the template, forced at the centroid
templateFluxErr  | f32  | nJy     | stat.error;phot.flux        | 0269 | its error
ixx              | f32  | arcsec**2 | src.morph.param           | 0269 | adaptive second moment along the columns' axis
iyy              | f32  | arcsec**2 | src.morph.param           | 0269 | adaptive second moment along the rows' axis
ixy              | f32  | arcsec**2 | src.morph.param           | 0269 | adaptive mixed second moment
ixxPSF           | f32  | arcsec**2 | instr.det.psf             | 0269 | ixx of the PSF here
iyyPSF           | f32  | arcsec**2 | instr.det.psf             | 0269 | iyy of the PSF here
ixyPSF           | f32  | arcsec**2 | instr.det.psf             | 0269 | ixy of the PSF here
shape_flag       | bool |         | meta.code.error             | 0269 | moments failed
shape_flag_no_pixels | bool |     | meta.code.error             | 0269 | no usable pixels for the moments
shape_flag_not_contained | bool | | meta.code.error             | 0269 | the moments' centre left the footprint's box
shape_flag_parent_source | bool | | meta.code.error             | 0269 | moments are those of a blend
extendedness     | f32  |         | src.class.starGalaxy        | 0269 | 0 for a point, 1 for an extended source, continuous
reliability      | f32  |         | stat.probability            | 0269 | probability that the source is astrophysical and no artefact
reliabilityVersion | str |        | meta.version                | 0269 | version of the classifier
band             | str  |         | instr.bandpass              | 0269 | filter, one letter
isDipole         | bool |         | meta.code                   | 0269 | a dipole describes the pixels better than a point
dipoleFitAttempted | bool |       | meta.code                   | 0269 | a dipole was fitted
timeProcessedMjdTai* | f64 | d    | time.processing             | 0388 | when the row was made, TAI
timeWithdrawnMjdTai | f64 | d     | time.processing             | 0388 | when the row was declared invalid
bboxSize*        | i32  | pixel   | phys.size                   | 0274 | side of the square that holds the footprint
pixelFlags       | bool |         | meta.code.error             | 0269 | pixel flags could not be set
pixelFlags_bad   | bool |         | meta.code.qual              | 0269 | defect in the footprint
pixelFlags_cr    | bool |         | meta.code.qual              | 0269 | cosmic ray in the footprint
pixelFlags_crCenter | bool |      | meta.code.qual              | 0269 | cosmic ray in the central 3×3 pixels
pixelFlags_edge  | bool |         | meta.code.qual              | 0269 | footprint reaches the edge of the usable area
pixelFlags_nodata | bool |        | meta.code.qual              | 0269 | pixel without data in the footprint
pixelFlags_nodataCenter | bool |  | meta.code.qual              | 0269 | pixel without data in the central 3×3
pixelFlags_interpolated | bool |  | meta.code.qual              | 0269 | interpolated pixel in the footprint
pixelFlags_interpolatedCenter | bool | | meta.code.qual          | 0269 | interpolated pixel in the central 3×3
pixelFlags_offimage | bool |      | meta.code.qual              | 0269 | the centroid lies off the image
pixelFlags_saturated | bool |     | meta.code.qual              | 0269 | saturated pixel in the footprint
pixelFlags_saturatedCenter | bool | | meta.code.qual            | 0269 | saturated pixel in the central 3×3
pixelFlags_suspect | bool |       | meta.code.qual              | 0269 | pixel of doubtful response in the footprint
pixelFlags_suspectCenter | bool | | meta.code.qual              | 0269 | pixel of doubtful response in the central 3×3
pixelFlags_streak | bool |        | meta.code.qual              | 0269 | satellite trail in the footprint
pixelFlags_streakCenter | bool |  | meta.code.qual              | 0269 | satellite trail in the central 3×3
pixelFlags_injected | bool |      | meta.code.qual              | 0269 | synthetic source in the footprint
pixelFlags_injectedCenter | bool | | meta.code.qual             | 0269 | synthetic source in the central 3×3
pixelFlags_injected_template | bool | | meta.code.qual           | 0269 | synthetic source of the template in the footprint
pixelFlags_injected_templateCenter | bool | | meta.code.qual     | 0269 | synthetic source of the template in the central 3×3
glint_trail      | bool |         | meta.code.qual              | 0269 | one of several detections on a line: glints of a satellite
"""

_DIA_SOURCE_ADDED = """
differenceImageId | str |         | meta.id;obs.image           | 0269 | difference image it was found on
scienceImageId   | str  |         | meta.id;obs.image           | 0269 | visit image behind that difference
templateId       | str  |         | meta.id;obs.image           | 0269 | template behind that difference
x_y_Cov          | f32  | pixel**2 | stat.covariance            | 0333 | covariance of x and y
psfRa            | f64  | deg     | pos.eq.ra                   | 0269 | right ascension of the PSF model, position fitted freely
psfRaErr         | f32  | deg     | stat.error;pos.eq.ra        | 0269 | its error, times cos(dec)
psfDec           | f64  | deg     | pos.eq.dec                  | 0269 | declination of the PSF model, position fitted freely
psfDecErr        | f32  | deg     | stat.error;pos.eq.dec       | 0269 | its error
psfRa_psfDec_Cov | f32  | deg**2  | stat.covariance             | 0333 | covariance of psfRa cos(dec) and psfDec
psfFlux_psfRa_Cov | f32 | nJy.deg | stat.covariance             | 0333 | covariance of flux and psfRa cos(dec)
psfFlux_psfDec_Cov | f32 | nJy.deg | stat.covariance            | 0333 | covariance of flux and psfDec
psfFlux_flag_excursion | bool |   | meta.code.error             | 0269 | the fitted position ran away and was stopped
scienceRa        | f64  | deg     | pos.eq.ra                   | 0272 | right ascension of the centroid on the visit image
scienceRaErr     | f32  | deg     | stat.error;pos.eq.ra        | 0272 | its error, times cos(dec)
scienceDec       | f64  | deg     | pos.eq.dec                  | 0272 | declination of the centroid on the visit image
scienceDecErr    | f32  | deg     | stat.error;pos.eq.dec       | 0272 | its error
scienceRa_scienceDec_Cov | f32 | deg**2 | stat.covariance       | 0333 | covariance of scienceRa cos(dec) and scienceDec
trailLnL         | f32  |         | stat.likelihood             | 0333 | ln likelihood of the pixels given the trail model
trailFlux_trailRa_Cov | f32 | nJy.deg | stat.covariance         | 0333 | covariance of trail flux and trailRa cos(dec)
trailFlux_trailDec_Cov | f32 | nJy.deg | stat.covariance        | 0333 | covariance of trail flux and trailDec
trailFlux_trailLength_Cov | f32 | nJy.arcsec | stat.covariance  | 0333 | covariance of trail flux and length
trailFlux_trailAngle_Cov | f32 | nJy.deg | stat.covariance      | 0333 | covariance of trail flux and bearing
trailRa_trailDec_Cov | f32 | deg**2 | stat.covariance           | 0333 | covariance of trailRa cos(dec) and trailDec
trailRa_trailLength_Cov | f32 | deg.arcsec | stat.covariance    | 0333 | covariance of trailRa cos(dec) and length
trailRa_trailAngle_Cov | f32 | deg**2 | stat.covariance         | 0333 | covariance of trailRa cos(dec) and bearing
trailDec_trailLength_Cov | f32 | deg.arcsec | stat.covariance   | 0333 | covariance of trailDec and length
trailDec_trailAngle_Cov | f32 | deg**2 | stat.covariance        | 0333 | covariance of trailDec and bearing
trailLength_trailAngle_Cov | f32 | arcsec.deg | stat.covariance | 0333 | covariance of length and bearing
isTrailed        | bool |         | meta.code                   | 0269 | a trail describes the pixels better than a point
trail_flag_short | bool |         | meta.code.qual              | 0269 | too short for its length to be measured
dipoleRa         | f64  | deg     | pos.eq.ra                   | 0269 | right ascension half-way between the lobes
dipoleRaErr      | f32  | deg     | stat.error;pos.eq.ra        | 0333 | its error, times cos(dec)
dipoleDec        | f64  | deg     | pos.eq.dec                  | 0269 | declination half-way between the lobes
dipoleDecErr     | f32  | deg     | stat.error;pos.eq.dec       | 0333 | its error
dipoleLengthErr  | f32  | arcsec  | stat.error;pos.angDistance  | 0333 | error of the separation
dipoleAngleErr   | f32  | deg     | stat.error;pos.posAng       | 0333 | error of the bearing
dipoleLnL        | f32  |         | stat.likelihood             | 0333 | ln likelihood of the pixels given the dipole model
dipoleMeanFlux_dipoleFluxDiff_Cov | f32 | nJy**2 | stat.covariance | 0333 | covariance of mean flux and flux difference
dipoleMeanFlux_dipoleRa_Cov | f32 | nJy.deg | stat.covariance   | 0333 | covariance of mean flux and dipoleRa cos(dec)
dipoleMeanFlux_dipoleDec_Cov | f32 | nJy.deg | stat.covariance  | 0333 | covariance of mean flux and dipoleDec
dipoleMeanFlux_dipoleLength_Cov | f32 | nJy.arcsec | stat.covariance | 0333 | covariance of mean flux and separation
dipoleMeanFlux_dipoleAngle_Cov | f32 | nJy.deg | stat.covariance | 0333 | covariance of mean flux and bearing
dipoleFluxDiff_dipoleRa_Cov | f32 | nJy.deg | stat.covariance   | 0333 | covariance of flux difference and dipoleRa cos(dec)
dipoleFluxDiff_dipoleDec_Cov | f32 | nJy.deg | stat.covariance  | 0333 | covariance of flux difference and dipoleDec
dipoleFluxDiff_dipoleLength_Cov | f32 | nJy.arcsec | stat.covariance | 0333 | covariance of flux difference and separation
dipoleFluxDiff_dipoleAngle_Cov | f32 | nJy.deg | stat.covariance | 0333 | covariance of flux difference and bearing
dipoleRa_dipoleDec_Cov | f32 | deg**2 | stat.covariance         | 0333 | covariance of dipoleRa cos(dec) and dipoleDec
dipoleRa_dipoleLength_Cov | f32 | deg.arcsec | stat.covariance  | 0333 | covariance of dipoleRa cos(dec) and separation
dipoleRa_dipoleAngle_Cov | f32 | deg**2 | stat.covariance       | 0333 | covariance of dipoleRa cos(dec) and bearing
dipoleDec_dipoleLength_Cov | f32 | deg.arcsec | stat.covariance | 0333 | covariance of dipoleDec and separation
dipoleDec_dipoleAngle_Cov | f32 | deg**2 | stat.covariance      | 0333 | covariance of dipoleDec and bearing
dipoleLength_dipoleAngle_Cov | f32 | arcsec.deg | stat.covariance | 0333 | covariance of separation and bearing
dipole_flag      | bool |         | meta.code.error             | 0269 | dipole fit failed
dipole_flag_unresolved | bool |   | meta.code.qual              | 0269 | separation below half the FWHM: only flux times separation is measured
dipoleDcrLength  | f32  | arcsec  | pos.angDistance             |      | shift expected here from differential chromatic refraction
dipoleDcrAngle   | f32  | deg     | pos.posAng                  |      | bearing of that shift
dipoleRegistrationLength | f32 | arcsec | pos.angDistance        |      | shift expected from the error of the registration
ixxErr           | f32  | arcsec**2 | stat.error;src.morph.param | 0269 | error of ixx
iyyErr           | f32  | arcsec**2 | stat.error;src.morph.param | 0269 | error of iyy
ixyErr           | f32  | arcsec**2 | stat.error;src.morph.param | 0269 | error of ixy
ixx_iyy_Cov      | f32  | arcsec**4 | stat.covariance           | 0333 | covariance of ixx and iyy
ixx_ixy_Cov      | f32  | arcsec**4 | stat.covariance           | 0333 | covariance of ixx and ixy
iyy_ixy_Cov      | f32  | arcsec**4 | stat.covariance           | 0333 | covariance of iyy and ixy
shape_flag_oneStep | bool |       | meta.code                   |      | moments are one step from the PSF's, not iterated
extendednessErr  | f32  |         | stat.error                  | 0333 | error of the extendedness, where it is defined
templateBackground | f32 | nJy.arcsec**-2 | phot.flux.sb;instr.background | 0269 | surface brightness of the template here, sources included
templateBackgroundErr | f32 | nJy.arcsec**-2 | stat.error;phot.flux.sb | 0269 | its error
reliability_flag | bool |         | meta.code.error             | 0269 | no reliability, it is NULL
reliability_flag_domain | bool |  | meta.code.error             | 0269 | because the PSF is sampled unlike those of the classifier's training
reliability_flag_noPixels | bool | | meta.code.error            | 0269 | because too few pixels are usable
isSubThreshold   | bool |         | meta.code                   | 0270 | below the detection threshold, kept by a selection rule, never associated or alerted
selectionBits    | i32  |         | meta.code                   | 0270 | why a sub-threshold row was kept: 1 random, 2 near an object, 4 near an ephemeris, 8 user list, 16 sky source
selectionWeight  | f32  |         | stat.weight                 | 0270 | peaks the row stands for; 1 for detections
isDeblendParent  | bool |         | meta.code                   | 0269 | a blend that was split; its children carry its id
isStreak         | bool |         | meta.code.qual              | 0269 | a fragment of a satellite trail
isGlint          | bool |         | meta.code.qual              | 0269 | member of a line of glints
pixelFlags_bleed | bool |         | meta.code.qual              | 0269 | charge bleed in the footprint
pixelFlags_crosstalk | bool |     | meta.code.qual              | 0269 | crosstalk victim in the footprint
pixelFlags_unlisted | bool |      | meta.code.qual              | 0269 | column found bad from the data in the footprint
pixelFlags_saturated_template | bool | | meta.code.qual         | 0269 | saturated pixel of the template in the footprint
pixelFlags_saturated_templateCenter | bool | | meta.code.qual   | 0269 | saturated pixel of the template in the central 3×3
pixelFlags_inexactPsf | bool |    | meta.code.qual              | 0269 | template with missing inputs in the footprint
"""

_DIA_FORCED_SOURCE = """
diaForcedSourceId* | i64 |        | meta.id;meta.main           | 0292 | unique number: visit, detector and counter packed
diaObjectId*     | i64  |         | meta.id.assoc               | 0317 | object at whose position was measured
ra*              | f64  | deg     | pos.eq.ra;meta.main         | 0317 | right ascension of that position
dec*             | f64  | deg     | pos.eq.dec;meta.main        | 0317 | declination of that position
visit*           | i64  |         | meta.id;obs.image           | 0317 | exposure number
detector*        | i16  |         | meta.id;instr.det           | 0317 | CCD number
psfFlux          | f32  | nJy     | phot.flux;em.opt            | 0317 | PSF flux on the difference
psfFluxErr       | f32  | nJy     | stat.error;phot.flux        | 0317 | its error
midpointMjdTai*  | f64  | d       | time.epoch                  | 0317 | middle of the exposure, TAI
scienceFlux      | f32  | nJy     | phot.flux;em.opt            | 0317 | PSF flux on the visit image
scienceFluxErr   | f32  | nJy     | stat.error;phot.flux        | 0317 | its error
band             | str  |         | instr.bandpass              | 0317 | filter, one letter
timeProcessedMjdTai* | f64 | d    | time.processing             | 0388 | when the row was made, TAI
timeWithdrawnMjdTai | f64 | d     | time.processing             | 0388 | when the row was declared invalid
"""

_DIA_FORCED_SOURCE_ADDED = """
psfChi2          | f32  |         | stat.fit.chi2               | 0331 | χ² of the PSF at that position
psfNdata         | i32  |         | meta.number                 | 0331 | pixels in that fit
psfFlux_flag     | bool |         | meta.code.error             | 0317 | no flux on the difference
psfFlux_flag_edge | bool |        | meta.code.error             | 0317 | too close to the edge for a full PSF
psfFlux_flag_noGoodPixels | bool | | meta.code.error            | 0317 | too few unmasked pixels
scienceFlux_flag | bool |         | meta.code.error             | 0317 | no flux on the visit image
pixelFlags_bad   | bool |         | meta.code.qual              | 0317 | defect within the PSF's core
pixelFlags_cr    | bool |         | meta.code.qual              | 0317 | cosmic ray within the PSF's core
pixelFlags_edge  | bool |         | meta.code.qual              | 0317 | edge within the PSF's core
pixelFlags_nodata | bool |        | meta.code.qual              | 0317 | pixel without data within the PSF's core
pixelFlags_interpolated | bool |  | meta.code.qual              | 0317 | interpolated pixel within the PSF's core
pixelFlags_saturated | bool |     | meta.code.qual              | 0317 | saturated pixel within the PSF's core
pixelFlags_suspect | bool |       | meta.code.qual              | 0317 | pixel of doubtful response within the PSF's core
pixelFlags_streak | bool |        | meta.code.qual              | 0317 | satellite trail within the PSF's core
pixelFlags_injected | bool |      | meta.code.qual              | 0317 | synthetic source within the PSF's core
pixelFlags_injected_template | bool | | meta.code.qual          | 0317 | synthetic source of the template within the PSF's core
pixelFlags_saturated_template | bool | | meta.code.qual         | 0317 | saturated pixel of the template within the PSF's core
isUpperLimit     | bool |         | meta.code                   | 0317 | the flux, of either sign, is below three times its error
isPrecovery      | bool |         | meta.code                   | 0287 | measured on an exposure before the object's first source
"""

DIA_SOURCE = Table(
    "DiaSource",
    parse(_DIA_SOURCE) + parse(_DIA_SOURCE_ADDED, added=True),
    ("diaSourceId",),
    "One detection on one difference image, or a sub-threshold peak kept by a selection rule.",
)

DIA_FORCED_SOURCE = Table(
    "DiaForcedSource",
    parse(_DIA_FORCED_SOURCE) + parse(_DIA_FORCED_SOURCE_ADDED, added=True),
    ("diaObjectId", "visit", "detector"),
    "A flux measured at the position of a known object, detected there or not.",
)
