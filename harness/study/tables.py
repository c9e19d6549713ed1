"""Tables of a study beside ``injection`` and ``injection_outcome``."""

# ruff: noqa: E501 -- one line per column reads better than any wrapping

from __future__ import annotations

from pipeline.diasource.reliability import FEATURES
from pipeline.schema.columns import Table, parse

__all__ = ["DETECTION", "PAINTING", "RECOVERY"]

RECOVERY = Table(
    "recovery",
    parse(
        """
injectionId*     | i64  |         | meta.id;meta.main           | 0097 | injection
realisation*     | i32  |         | meta.number                 | 0097 | which painting of the image
band*            | str  |         | instr.bandpass              | 0097 | band of the visit
sigmaNull        | f64  | nJy     | stat.error;phot.flux        | 0097 | noise of a PSF flux on the source-free difference here
idealFraction    | f64  |         | stat.probability            | 0097 | chance that a matched filter finds it in this noise alone; NULL for trails
starDistance     | f64  | pixel   | pos.angDistance             | 0097 | distance to the nearest saturated star; NULL where there is none
edgeDistance     | f64  | pixel   | pos.distance                | 0097 | distance to the nearest edge
detected*        | bool |         | meta.code                   | 0097 | whether it became a source above the threshold
reliable*        | bool |         | meta.code                   | 0097 | whether that source is above the reliability cut of detection
alerted*         | bool |         | meta.code                   | 0097 | whether that source passes the cuts of an alert
nullScore        | f64  |         | stat.snr                    | 0097 | score of the campaign's difference here, without the source
seeingRatio      | f64  |         | instr.obsty.seeing          | 0097 | width of the visit image's PSF over the template's; NULL where it has none
eventId          | i64  |         | meta.id.assoc               | 0097 | event of which this is an epoch; NULL for sources of one visit
peakMagnitude    | f64  | mag     | phot.mag                    | 0097 | AB magnitude of the event at its peak
distance         | f64  | pixel   | pos.distance                | 0097 | from the true to the measured position
dx               | f64  | pixel   | pos.cartesian.x             | 0097 | measured minus true column
dy               | f64  | pixel   | pos.cartesian.y             | 0097 | measured minus true row
dxErr            | f64  | pixel   | stat.error                  | 0097 | error of the measured column
dyErr            | f64  | pixel   | stat.error                  | 0097 | error of the measured row
snr              | f64  |         | stat.snr                    | 0097 | measured score, with its sign
psfFlux          | f64  | nJy     | phot.flux                   | 0097 | measured flux on the difference
psfFluxErr       | f64  | nJy     | stat.error;phot.flux        | 0097 | its error
reliability      | f64  |         | stat.probability            | 0097 | of the source
""",
        added=True,
    ),
    ("injectionId",),
    "What was measured of one injection.",
)

PAINTING = Table(
    "painting",
    parse(
        """
visit*           | i64  |         | meta.id;obs.image           | 0097 | exposure number
detector*        | i16  |         | meta.id;instr.det           | 0097 | CCD number
realisation*     | i32  |         | meta.number                 | 0097 | which painting of the image
area             | f64  | deg**2  | phys.angArea                | 0097 | sky of the pixels on which something can be detected
pixelScale       | f64  | arcsec  | instr.pixel                 | 0097 | side of a pixel
fwhm             | f64  | pixel   | instr.obsty.seeing          | 0097 | of the difference's PSF in the middle
matchRadius      | f64  | pixel   | pos.distance                | 0097 | farthest detection that is an injection's own
differenceSha256* | str |         | meta.checksum               | 0097 | file of the difference without injections
""",
        added=True,
    ),
    (),
    "One image, painted once.",
)

DETECTION = Table(
    "detection",
    parse(
        """
visit*           | i64  |         | meta.id;obs.image           | 0097 | exposure number
detector*        | i16  |         | meta.id;instr.det           | 0097 | CCD number
realisation*     | i32  |         | meta.number                 | 0097 | which painting of the image
x*               | f64  | pixel   | pos.cartesian.x             | 0097 | column
y*               | f64  | pixel   | pos.cartesian.y             | 0097 | row
snr*             | f64  |         | stat.snr                    | 0097 | score, with its sign
reliability      | f64  |         | stat.probability            | 0097 | of the source
reliable*        | bool |         | meta.code                   | 0097 | whether it is above the reliability cut of detection
alerted*         | bool |         | meta.code                   | 0097 | whether it passes the cuts of an alert
injectionId      | i64  |         | meta.id                     | 0097 | injection it belongs to; NULL for every other source
known*           | bool |         | meta.code                   | 0097 | whether the campaign itself has a source here
chance*          | bool |         | meta.code                   | 0097 | whether it belongs to no injection and the injections, turned by half a turn, match it
"""
        + "".join(
            f"{name} | f64 | | stat.value | 0097 | feature of the classifier: {what}\n"
            for name, what in FEATURES.items()
        ),
        added=True,
    ),
    (),
    "One source above the threshold on a painted image.",
)
