"""What goes in and what is made of it: exposures, visit images, templates, differences."""

# ruff: noqa: E501 -- one line per column reads better than any wrapping

from __future__ import annotations

from pipeline.schema.columns import Table, parse

__all__ = ["DIFFERENCE_IMAGE", "EXPOSURE", "TEMPLATE", "TEMPLATE_INPUT", "VISIT_IMAGE"]

_EXPOSURE = """
visit*           | i64  |         | meta.id;obs.image           | 0068 | exposure number
band*            | str  |         | instr.bandpass              | 0068 | filter, one letter
field            | str  |         | meta.id;obs.field                   | 0068 | field; science and template are paired by field and band
observationReason | str |        | meta.note                   | 0274 | why it was taken: the observing programme
exptime*         | f64  | s       | time.duration;obs.exposure  | 0068 | open-shutter time
startMjdUtc      | f64  | d       | time.start                  | 0068 | start of the exposure, UTC
midpointMjdTai*  | f64  | d       | time.epoch                  | 0068 | middle of the exposure, TAI
ra               | f64  | deg     | pos.eq.ra                   | 0068 | pointing, right ascension, ICRS
dec              | f64  | deg     | pos.eq.dec                  | 0068 | pointing, declination, ICRS
airmass          | f64  |         | obs.airMass                 | 0068 | at the middle of the exposure
role             | str  |         | meta.code                   | 0280 | template or science
camera           | str  |         | instr                       |      | camera definition
detectors        | str  |         | meta.id;instr.det                   |      | CCD numbers in the file, separated by blanks
kind             | str  |         | meta.code                   |      | raw, instcal or generic
file*            | str  |         | meta.id;meta.file                   |      | path within the workspace, or absolute
sha256           | str  |         | meta.checksum               |      | of the file
"""

_IDENTITY = """
visit*           | i64  |         | meta.id;obs.image           | {r} | exposure number
detector*        | i16  |         | meta.id;instr.det           | {r} | CCD number
band             | str  |         | instr.bandpass              | {r} | filter, one letter
field            | str  |         | meta.id;obs.field                   | {r} | field
"""

_FILE = """
file             | str  |         | meta.id;meta.file                   | 0386 | path within the workspace
sha256           | str  |         | meta.checksum               | 0386 | of the file
stageVersion     | i32  |         | meta.version                | 0386 | version of the stage that made it
configHash       | str  |         | meta.checksum               | 0386 | of the configuration that matters
softwareVersion  | str  |         | meta.version                | 0386 | of nightjar
runId            | str  |         | meta.id                     | 0386 | run that made it
"""

_CORNERS = """
ra               | f64  | deg     | pos.eq.ra                   | 0030 | right ascension of the middle
dec              | f64  | deg     | pos.eq.dec                  | 0030 | declination of the middle
llcra            | f64  | deg     | pos.eq.ra                   | 0030 | right ascension of the corner at (0, 0)
llcdec           | f64  | deg     | pos.eq.dec                  | 0030 | its declination
ulcra            | f64  | deg     | pos.eq.ra                   | 0030 | right ascension of the corner at (0, ySize - 1)
ulcdec           | f64  | deg     | pos.eq.dec                  | 0030 | its declination
urcra            | f64  | deg     | pos.eq.ra                   | 0030 | right ascension of the corner at (xSize - 1, ySize - 1)
urcdec           | f64  | deg     | pos.eq.dec                  | 0030 | its declination
lrcra            | f64  | deg     | pos.eq.ra                   | 0030 | right ascension of the corner at (xSize - 1, 0)
lrcdec           | f64  | deg     | pos.eq.dec                  | 0030 | its declination
xSize            | i32  | pixel   | pos.cartesian.x             |      | columns
ySize            | i32  | pixel   | pos.cartesian.y             |      | rows
"""

_VISIT_IMAGE = f"""
visitImageId*    | str  |         | meta.id;meta.main           | 0069 | name of the product
{_IDENTITY.format(r="0069").strip()}
midpointMjdTai   | f64  | d       | time.epoch                  | 0069 | middle of the exposure, TAI
exposureTime     | f64  | s       | time.duration;obs.exposure  | 0069 | open-shutter time
airmass          | f64  |         | obs.airMass                 | 0069 | at the middle of the exposure
unit             | str  |         | meta.unit                   | 0043 | nJy, or electron where there is no zero point
{_CORNERS.strip()}
pixelScale       | f32  | arcsec.pixel**-1 | instr.scale;instr.pixel        | 0030 | side of a pixel
zeroPoint        | f32  | mag     | phot.mag;arith.zp           | 0029 | AB magnitude of one electron of the whole exposure
zeroPointErr     | f32  | mag     | stat.error;arith.zp         | 0029 | its error
zeroPointScatter | f32  | mag     | stat.stdev                  | 0029 | scatter of the standards
nZeroPointStars  | i32  |         | meta.number                 | 0029 | standards used
apCorr           | f32  |         | phot.calib                  | 0029 | aperture correction, infinite over 12-pixel aperture
apCorrErr        | f32  |         | stat.error                  | 0029 | its error
nApCorrStars     | i32  |         | meta.number                 | 0029 | stars behind it
psfFwhm          | f32  | arcsec  | instr.det.psf               | 0070 | full width at half maximum in the middle
psfSigma         | f32  | pixel   | instr.det.psf               | 0070 | square root of half the trace of the second moments
psfE1            | f32  |         | instr.det.psf               | 0070 | median ellipticity along the axes
psfE2            | f32  |         | instr.det.psf               | 0070 | median ellipticity along the diagonals
psfOrder         | i32  |         | stat.fit.param              | 0070 | degree of the spatial polynomial
nPsfStars        | i32  |         | meta.number                 | 0070 | stars behind the model
psfChi2          | f32  |         | stat.fit.chi2               | 0070 | χ² per pixel at stars held out
psfSizeResidual  | f32  |         | stat.fit.residual           | 0070 | mean relative size residual at stars held out
psfE1Residual    | f32  |         | stat.fit.residual           | 0070 | mean ellipticity residual at stars held out
psfE2Residual    | f32  |         | stat.fit.residual           | 0070 | mean ellipticity residual at stars held out
astrometryRmsRa  | f32  | mas     | stat.fit.residual;pos.eq.ra | 0030 | rms residual of the standards in right ascension, weighted by their expected variances
astrometryRmsDec | f32  | mas     | stat.fit.residual;pos.eq.dec | 0030 | rms residual of the standards in declination, weighted by their expected variances
nAstrometryStars | i32  |         | meta.number                 | 0030 | standards used
astrometryOrder  | i32  |         | stat.fit.param              | 0030 | degree of the correction to the header's solution
skyBackground    | f32  | electron | instr.background           | 0327 | median background per pixel
skyBackgroundErr | f32  | electron | stat.error                 | 0327 | its error
skyNoise         | f32  |         | instr.background;stat.stdev | 0327 | noise of a pixel of blank sky, unit of the image
varianceScale    | f32  |         | stat.fit.param              | 0072 | factor applied to the variance to meet the noise
noiseRatio       | f32  |         | stat.fit.goodness           | 0072 | empirical noise over that of the variance plane
depth5           | f32  | mag     | phot.mag                    | 0327 | AB magnitude of a point source of five σ
nSources         | i32  |         | meta.number                 |      | sources detected
fractionMasked   | f32  |         | meta.code.qual              | 0327 | share of pixels that are not used
fractionSaturated | f32 |         | meta.code.qual              |      | share of saturated pixels
fractionBad      | f32  |         | meta.code.qual              |      | share of defects
nCosmicRays      | i32  |         | meta.number                 | 0071 | cosmic rays removed
nBadColumns      | i32  |         | meta.number                 |      | bad columns found that are not in the list
nCrosstalkPixels | i32  |         | meta.number                 | 0061 | pixels too strongly affected by crosstalk
crosstalkResidual | f32 |         | stat.fit.residual           | 0061 | residual of a 40,000 ADU source in units of the sky noise
notes            | str  |         | meta.note                   |      | what was not done, and why
metrics          | str  |         | meta.record                 |      | further numbers as JSON
{_FILE.strip()}
"""

_TEMPLATE = f"""
templateId*      | str  |         | meta.id;meta.main           | 0280 | name of the product
field*           | str  |         | meta.id;obs.field                   | 0280 | field
band*            | str  |         | instr.bandpass              | 0280 | filter, one letter
detector*        | i16  |         | meta.id;instr.det           | 0280 | CCD number whose area it covers
nInputs*         | i32  |         | meta.number                 | 0280 | visit images in it
unit             | str  |         | meta.unit                   | 0043 | nJy or electron
{_CORNERS.strip()}
psfFwhm          | f32  | arcsec  | instr.det.psf               | 0070 | full width at half maximum in the middle
skyNoise         | f32  |         | instr.background;stat.stdev | 0327 | large-scale noise of a pixel of blank sky, unit of the image
depth5           | f32  | mag     | phot.mag                    | 0327 | AB magnitude of a point source of five σ
noiseCorrelation | f32  |         | stat.correlation            |      | autocovariance at one pixel along a row, over the variance
fractionNoData   | f32  |         | meta.code.qual              |      | share of pixels without input
firstMjdTai      | f64  | d       | time.start                  |      | earliest input, TAI
lastMjdTai       | f64  | d       | time.end                    |      | latest input, TAI
notes            | str  |         | meta.note                   |      | what was not done, and why
metrics          | str  |         | meta.record                 |      | further numbers as JSON
{_FILE.strip()}
"""

_TEMPLATE_INPUT = """
templateId*      | str  |         | meta.id.part                | 0280 | the template
visit*           | i64  |         | meta.id;obs.image           | 0280 | exposure number of the input
detector*        | i16  |         | meta.id;instr.det           | 0280 | its CCD number
visitImageId     | str  |         | meta.id                     | 0280 | name of the input
weight*          | f64  |         | stat.weight                 | 0280 | its weight in the mean
psfFwhm          | f32  | arcsec  | instr.det.psf               | 0280 | its seeing
midpointMjdTai   | f64  | d       | time.epoch                  | 0280 | its epoch, TAI
fractionRejected | f32  |         | meta.code.qual              |      | share of its pixels rejected as outliers
sha256           | str  |         | meta.checksum               | 0386 | of its file
"""

_DIFFERENCE_IMAGE = f"""
differenceImageId* | str |        | meta.id;meta.main           | 0010 | name of the product
{_IDENTITY.format(r="0010").strip()}
scienceImageId   | str  |         | meta.id                     | 0010 | visit image that was subtracted from
templateId       | str  |         | meta.id                     | 0010 | template that was subtracted
kernelId         | str  |         | meta.id                     | 0010 | PSF-matching kernel, an HDU of the file
psfId            | str  |         | meta.id                     | 0010 | PSF of the difference, an HDU of the file
scienceSha256    | str  |         | meta.checksum               | 0386 | of the visit image
templateSha256   | str  |         | meta.checksum               | 0386 | of the template
unit             | str  |         | meta.unit                   | 0043 | nJy or electron
convolved        | str  |         | meta.code                   | 0010 | template or science: the image that was convolved
kernelOrder      | i32  |         | stat.fit.param              | 0010 | spatial degree of the kernel
kernelBasis      | i32  |         | meta.number                 | 0010 | functions in its basis
kernelSum        | f32  |         | stat.fit.param              | 0010 | photometric ratio in the middle
kernelSumRms     | f32  |         | stat.stdev                  | 0010 | its variation over the image
kernelCondition  | f32  |         | stat.fit.goodness           | 0010 | condition number of the normal equations
nKernelStamps    | i32  |         | meta.number                 | 0010 | stamps used
nKernelStampsRejected | i32 |     | meta.number                 | 0010 | stamps clipped
kernelChi2       | f32  |         | stat.fit.chi2               | 0010 | median reduced χ² of the stamps used
psfFwhm          | f32  | arcsec  | instr.det.psf               | 0070 | full width at half maximum of the difference's PSF
skyNoise         | f32  |         | instr.background;stat.stdev | 0010 | noise of a pixel of blank sky, unit of the image
noiseRatio       | f32  |         | stat.fit.goodness           | 0010 | robust standard deviation of pixel over expected noise
scoreStd         | f32  |         | stat.fit.goodness           | 0010 | robust standard deviation of the score
lag1X            | f32  |         | stat.correlation            | 0010 | noise correlation of neighbours in a row
lag1Y            | f32  |         | stat.correlation            | 0010 | noise correlation of neighbours in a column
depth5           | f32  | mag     | phot.mag                    | 0010 | AB magnitude of a point source of five σ
fractionMasked   | f32  |         | meta.code.qual              | 0010 | share of pixels excluded from detection
nDiaSources      | i32  |         | meta.number                 | 0269 | sources above threshold
nCandidates      | i32  |         | meta.number                 | 0270 | peaks in the ledger
notes            | str  |         | meta.note                   |      | what was not done, and why
metrics          | str  |         | meta.record                 |      | further numbers as JSON
{_FILE.strip()}
"""

EXPOSURE = Table(
    "exposure",
    parse(_EXPOSURE, added=True),
    ("visit",),
    "One exposure of the campaign, all detectors.",
)

VISIT_IMAGE = Table(
    "visit_image",
    parse(_VISIT_IMAGE, added=True),
    ("visit", "detector"),
    "One calibrated image of one detector.",
)

TEMPLATE = Table(
    "template",
    parse(_TEMPLATE, added=True),
    ("templateId",),
    "One coadded template.",
)

TEMPLATE_INPUT = Table(
    "template_input",
    parse(_TEMPLATE_INPUT, added=True),
    ("templateId", "visit", "detector"),
    "One visit image that went into a template.",
)

DIFFERENCE_IMAGE = Table(
    "difference_image",
    parse(_DIFFERENCE_IMAGE, added=True),
    ("visit", "detector"),
    "One difference image of one detector.",
)
