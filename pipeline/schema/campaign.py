"""The ledger of a campaign: runs, units of work, candidates, injections, metrics, alerts."""

# ruff: noqa: E501 -- one line per column reads better than any wrapping

from __future__ import annotations

from pipeline.schema.columns import Table, parse

__all__ = [
    "ALERT",
    "ALERT_DELIVERY",
    "CANDIDATE",
    "CATALOG_VERSION",
    "INJECTION",
    "INJECTION_OUTCOME",
    "METRIC",
    "RUN",
    "UNIT",
]

_RUN = """
runId*           | str  |         | meta.id;meta.main           | 0386 | the run
command          | str  |         | meta.note                   | 0386 | command line
startedMjdTai    | f64  | d       | time.start                  | 0386 | start, TAI
endedMjdTai      | f64  | d       | time.end                    | 0386 | end, TAI
status           | str  |         | meta.code.status            | 0386 | running, done, failed or interrupted
exitCode         | i32  |         | meta.code.status            | 0386 | exit code of the command
softwareVersion  | str  |         | meta.version                | 0386 | of nightjar
commitId         | str  |         | meta.version                | 0386 | commit of the source tree, where known
configHash       | str  |         | meta.checksum               | 0386 | of the whole configuration
specHash         | str  |         | meta.checksum               | 0386 | of the pinned specification when the run was first started
seed             | i64  |         | meta.number                 | 0386 | seed of the campaign
jobs             | i32  |         | meta.number                 |      | processes
coordinatorCpuS  | f64  | s       | time.duration               |      | processor time of planning, starting and recording, all invocations
host             | str  |         | meta.id                     | 0386 | machine
python           | str  |         | meta.version                | 0386 | version of Python
packages         | str  |         | meta.version                | 0386 | versions of the libraries as JSON
previousHash     | str  |         | meta.checksum               | 0386 | of the record of the run before, empty for the first
fileHashes       | str  |         | meta.checksum               | 0386 | SHA-256 of the log and the configuration of each invocation, as JSON by file; null while it runs
nUnits           | i32  |         | meta.number                 | 0294 | units planned
nDone            | i32  |         | meta.number                 | 0294 | units that ended well
nFailed          | i32  |         | meta.number                 | 0294 | units that failed
nSkipped         | i32  |         | meta.number                 | 0294 | units already done before
"""

# Every version of the software reads these three columns: they stay as they are.
_CATALOG_VERSION = """
schemaVersion*   | i32  |         | meta.version                | 0386 | version of the declared tables
softwareVersion* | str  |         | meta.version                | 0386 | version of nightjar that wrote it
writtenMjdTai*   | f64  | d       | time.epoch                  | 0386 | when, TAI
"""

_UNIT = """
visit*           | i64  |         | meta.id;obs.image           | 0294 | exposure number; 0 for templates
detector*        | i16  |         | meta.id;instr.det           | 0294 | CCD number; -1 for whole visits
stage*           | str  |         | meta.code                   | 0294 | stage
status*          | str  |         | meta.code.status            | 0294 | planned, running, done, failed, skipped or blocked
cause            | str  |         | meta.code.error             | 0099 | code of the cause of a failure
message          | str  |         | meta.note                   | 0099 | one line about it
attempts         | i32  |         | meta.number                 | 0099 | how often it was tried
wallS            | f64  | s       | time.duration               | 0004 | elapsed time
cpuS             | f64  | s       | time.duration               |      | processor time
loopS            | f64  | s       | time.duration               |      | processor time of the calibration loop in the same process: the speed of the machine
peakRssMiB       | f64  | MiB     | meta.number                 |      | largest resident memory
inputHash        | str  |         | meta.checksum               | 0386 | of the inputs
configHash       | str  |         | meta.checksum               | 0386 | of the configuration that matters
outputHash       | str  |         | meta.checksum               | 0386 | of each file of the task, joined by +; at its last stage
rowCounts        | str  |         | meta.number                 | 0386 | rows that the task has in each table, as JSON; at its last stage
stageVersion     | i32  |         | meta.version                | 0386 | version of the stage
startedMjdTai    | f64  | d       | time.start                  | 0386 | start, TAI
templateId       | str  |         | meta.id                     |      | template, for units that make one
runId            | str  |         | meta.id                     | 0386 | run that did it last
notes            | str  |         | meta.note                   |      | what was not done, and why
"""

_CANDIDATE = """
candidateId*     | i64  |         | meta.id;meta.main           | 0270 | unique number: visit, detector and counter packed
visit*           | i64  |         | meta.id;obs.image           | 0270 | exposure number
detector*        | i16  |         | meta.id;instr.det           | 0270 | CCD number
x*               | f32  | pixel   | pos.cartesian.x;instr.det   | 0270 | column of the peak
y*               | f32  | pixel   | pos.cartesian.y;instr.det   | 0270 | row of the peak
snr*             | f32  |         | stat.snr                    | 0270 | score at the peak, with its sign
rule             | str  |         | meta.code                   | 0270 | rule that stopped it; NULL when it passed them all
value            | f64  |         | stat.value                  | 0270 | what the rule measured
bound            | f64  |         | stat.value                  | 0270 | what the rule allows
accepted*        | bool |         | meta.code                   | 0270 | whether it became a source above threshold
diaSourceId      | i64  |         | meta.id.assoc               | 0270 | the source it became
"""

_INJECTION = """
studyId*         | str  |         | meta.id                     | 0097 | study it belongs to
injectionId*     | i64  |         | meta.id;meta.main           | 0097 | unique number within the study
visit*           | i64  |         | meta.id;obs.image           | 0097 | exposure number
detector*        | i16  |         | meta.id;instr.det           | 0097 | CCD number
ra               | f64  | deg     | pos.eq.ra                   | 0097 | true right ascension
dec              | f64  | deg     | pos.eq.dec                  | 0097 | true declination
x                | f64  | pixel   | pos.cartesian.x;instr.det   | 0097 | true column
y                | f64  | pixel   | pos.cartesian.y;instr.det   | 0097 | true row
kind             | str  |         | meta.code.class             | 0097 | for example point, trail, dipole or negative
flux             | f64  | nJy     | phot.flux;em.opt            | 0097 | true flux on the difference
trailLength      | f64  | arcsec  | phys.angSize                | 0097 | length of its trail
trailAngle       | f64  | deg     | pos.posAng                  | 0097 | bearing of the trail, north through east
trueSnr          | f64  |         | stat.snr                    | 0097 | true flux over the noise of the source-free difference here
hostId           | i64  |         | meta.id.assoc               | 0097 | galaxy it was placed on
hostSurfaceBrightness | f64 | nJy.arcsec**-2 | phot.flux.sb     | 0097 | surface brightness beneath it
hostOffset       | f64  | arcsec  | pos.angDistance             | 0097 | distance from the centre of the host
seed             | i64  |         | meta.number                 | 0097 | seed it was drawn with
placed*          | bool |         | meta.code                   | 0097 | whether it could be placed
reason           | str  |         | meta.note                   | 0097 | why not
"""

_INJECTION_OUTCOME = """
studyId*         | str  |         | meta.id                     | 0097 | study
injectionId*     | i64  |         | meta.id                     | 0097 | injection
outcome*         | str  |         | meta.code.status            | 0097 | alerted, detected, or where it was lost
stage            | str  |         | meta.code                   | 0097 | stage at which it was lost
rule             | str  |         | meta.code                   | 0097 | rule that stopped it
value            | f64  |         | stat.value                  | 0097 | what the rule measured
bound            | f64  |         | stat.value                  | 0097 | what the rule allows
diaSourceId      | i64  |         | meta.id.assoc               | 0097 | source it became
candidateId      | i64  |         | meta.id.assoc               | 0097 | candidate it became
"""

_METRIC = """
visit            | i64  |         | meta.id;obs.image           | 0097 | exposure number; NULL for the campaign
detector         | i16  |         | meta.id;instr.det           | 0097 | CCD number; NULL for whole visits
stage*           | str  |         | meta.code                   | 0097 | stage that measured it
name*            | str  |         | meta.id                     | 0097 | name
value            | f64  |         | stat.value                  | 0097 | value
unit             | str  |         | meta.unit                   | 0097 | its unit
runId            | str  |         | meta.id                     | 0386 | run that measured it
"""

_ALERT = """
diaSourceId*     | i64  |         | meta.id;meta.main           | 0274 | source it announces; the alert's number
visit*           | i64  |         | meta.id;obs.image           | 0274 | exposure number
detector*        | i16  |         | meta.id;instr.det           | 0274 | CCD number
diaObjectId      | i64  |         | meta.id.assoc               | 0274 | its object
ssObjectId       | i64  |         | meta.id.assoc               | 0274 | its solar-system body
emitted*         | bool |         | meta.code                   | 0274 | whether an alert was written
reason           | str  |         | meta.note                   | 0274 | why not
file             | str  |         | meta.id;meta.file                   | 0094 | container file
position         | i32  |         | meta.number                 | 0094 | running number in the file
schemaVersion    | str  |         | meta.version                | 0274 | version of the packet's schema
nHistory         | i32  |         | meta.number                 | 0274 | previous sources in the packet
nForced          | i32  |         | meta.number                 | 0274 | previous forced sources in the packet
sizeBytes        | i32  | byte    | meta.number                 | 0274 | size of the packet
midpointMjdTai   | f64  | d       | time.epoch                  | 0004 | middle of the exposure, TAI
timeProcessedMjdTai | f64 | d     | time.processing             | 0004 | when it was written, TAI
"""

_ALERT_DELIVERY = """
topic*           | str  |         | meta.id                     | 0002 | topic of the broker
diaSourceId*     | i64  |         | meta.id                     | 0002 | the alert
contentHash*     | str  |         | meta.checksum               | 0002 | first 16 hex digits of the SHA-256 of the packet sent last
schemaId*        | i32  |         | meta.id                     | 0002 | number of its schema in the broker's registry
brokerPartition  | i32  |         | meta.number                 | 0002 | partition of the topic that took it
brokerOffset     | i64  |         | meta.number                 | 0002 | its place in the partition
deliveredMjdTai* | f64  | d       | time.epoch                  | 0004 | when the broker's acknowledgement came, TAI
"""

CATALOG_VERSION = Table(
    "catalog_version",
    parse(_CATALOG_VERSION, added=True),
    (),
    "One version of the tables that this catalogue has been brought to; the largest holds.",
)

RUN = Table(
    "run", parse(_RUN, added=True), ("runId",), "One invocation that changed the workspace."
)

UNIT = Table(
    "unit",
    parse(_UNIT, added=True),
    (),
    "One unit of work, visit × detector × stage, and how it ended.",
)

CANDIDATE = Table(
    "candidate",
    parse(_CANDIDATE, added=True),
    ("candidateId",),
    "One peak above 3 σ on a difference image and the rule that stopped it.",
)

INJECTION = Table(
    "injection",
    parse(_INJECTION, added=True),
    ("studyId", "injectionId"),
    "One synthetic source of a study.",
)

INJECTION_OUTCOME = Table(
    "injection_outcome",
    parse(_INJECTION_OUTCOME, added=True),
    ("studyId", "injectionId"),
    "What became of one synthetic source.",
)

METRIC = Table("metric", parse(_METRIC, added=True), (), "One number that a stage measured.")

ALERT = Table(
    "alert",
    parse(_ALERT, added=True),
    ("diaSourceId",),
    "One source above threshold and the alert made of it, or the reason why there is none.",
)

ALERT_DELIVERY = Table(
    "alert_delivery",
    parse(_ALERT_DELIVERY, added=True),
    ("topic", "diaSourceId"),
    "One alert that a broker has acknowledged; alerts without a row are still to be sent.",
)
