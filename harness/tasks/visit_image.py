"""Raw frame to visit image: the stages ``isr`` and ``calibrate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.campaign.context import Context
from harness.campaign.task import Blocked, Notes, Phase, Stage, Task, WorkItem
from harness.ledger import Outcome, Target
from harness.plan import Frame, Unit
from harness.system.hashes import combine
from harness.tasks import rows
from harness.tasks.tables import optional_table
from harness.workspace import Workspace
from pipeline import calibrate, io, isr
from pipeline.camera import Camera
from pipeline.errors import AstrometryError, FileFormatError, PhotometryError, UnitError
from pipeline.exposure import Exposure, Image, RawFrame, VisitInfo
from pipeline.io.keywords import parse_keywords
from pipeline.schema import VISIT_IMAGE

__all__ = ["TASK", "make_item"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item(WorkItem):
    """One frame; with sources of another visit image where there is no reference catalogue."""

    frame: Frame
    reference: Path | None = None


# -- plan ----------------------------------------------------------------------------------------


def _phases(context: Context) -> Iterator[Phase]:
    """Frames that others are aligned to, then all that need no other, then those aligned."""
    wanted = [frame for frame in context.frames.values() if frame.unit in context.chosen]
    yield from _anchors(context, wanted)
    references = context.references
    first = [frame for frame in wanted if frame.unit not in references]
    yield Phase(TASK.label, len(first), (make_item(context, frame) for frame in first))
    rest = [frame for frame in wanted if frame.unit in references]
    if rest:
        yield Phase("aligned image", len(rest), _aligned_items(context, rest, references))


def _anchors(context: Context, wanted: Sequence[Frame]) -> Iterator[Phase]:
    """Make the reference frames, and others in their place where one fails."""
    tried: set[Unit] = set()
    while True:
        references = context.references
        anchors = {references[f.unit] for f in wanted if f.unit in references} - tried
        if not anchors:
            return
        items = (make_item(context, context.frames[unit]) for unit in sorted(anchors))
        yield Phase("reference", len(anchors), items, final=False)
        tried |= anchors


def _aligned_items(
    context: Context, frames: Sequence[Frame], references: Mapping[Unit, Unit]
) -> Iterator[WorkItem | Blocked]:
    for frame in frames:
        reference = references[frame.unit]
        if context.done(Target(*reference), "calibrate"):
            yield make_item(context, frame, context.space.staging("calibrate", *reference))
        else:
            # Of an image that has been tried as a reference itself, the cause of its failure stays.
            yield Blocked(Target(*frame.unit), "its reference failed", ("isr",))


def make_item(context: Context, frame: Frame, reference: Path | None = None) -> _Item:
    """Make the work item of a frame.

    Parameters
    ----------
    context : Context
        The campaign.
    frame : Frame
        The frame.
    reference : Path, optional
        Sources of the visit image that it is aligned to.

    Returns
    -------
    WorkItem
        What is to be done.
    """
    of, space = context.state.hashes.of, context.space
    raw = of(frame.path)
    problem = [frame.problem] if frame.problem else []
    detrended = combine([raw, str(frame.detector), *_calibration_hashes(context, frame), *problem])
    calibrated = combine([detrended, of(space.refcat), of(reference) if reference else ""])
    return _Item(
        task=TASK,
        target=Target(*frame.unit),
        keys=TASK.keys(context.settings, detrended, calibrated),
        input_cards={"SCIHASH": raw},
        frame=frame,
        reference=reference,
        **context.common(),
    )


def _calibration_hashes(context: Context, frame: Frame) -> list[str]:
    own = [path for path in (frame.bias, frame.flat) if path is not None]
    found = [context.state.hashes.of(path) for path in (*own, *context.camera_files)]
    return [sha256 for sha256 in found if sha256 != "absent"]


# -- run -----------------------------------------------------------------------------------------


def _run(item: _Item, outcome: Outcome) -> Iterator[Notes]:
    camera = Camera.load(item.space.camera(item.settings.campaign.camera))
    exposure, metrics, notes = _detrended(item, camera)
    yield notes
    result = _diagnosed(item, exposure, camera)
    cards = {"SCIID": item.target.name, **item.input_cards, **item.provenance()}
    image = result.visit_image.replace(provenance={**exposure.provenance, **cards})
    io.write_exposure(item.products[0], image)
    outcome.wrote(item.products[0])
    io.write_parquet(item.output.staging("calibrate", *item.unit), result.sources)
    outcome.rows["visit_image"] = [
        _row(item, image, {**metrics, **result.summary}, [*notes, *result.notes], outcome)
    ]
    outcome.rows["metric"] = rows.metrics(item, isr=metrics, calibrate=result.summary)
    yield result.notes


def _detrended(item: _Item, camera: Camera) -> tuple[Exposure, Mapping[str, float], Notes]:
    frame = item.frame
    if frame.problem:
        raise FileFormatError(frame.problem)
    if frame.kind == "instcal":
        exposure = io.read_instcal(frame.path, frame.detector)
        _verify_input(item, exposure.info)
        return exposure, {}, ("instrument signature removed by the observatory",)
    if frame.kind == "generic":
        exposure = io.read_generic(
            frame.path,
            frame.visit,
            detector=frame.detector,
            camera=camera,
            keywords=parse_keywords(item.settings.campaign.keywords.split()),
            mask_bits=item.settings.campaign.mask_bits or None,
        )
        _verify_input(item, exposure.info)
        return exposure, {}, ("enters at calibrate: taken as detrended",)
    raw = io.read_raw(frame.path, camera, frame.detector)
    _verify_input(item, raw.info)
    detector = camera.detector(frame.detector)
    calibs = isr.Calibs(
        bias=_if_there(io.read_bias, frame.bias, camera, frame.detector),
        flat=_if_there(io.read_flat, frame.flat, camera, frame.detector),
    )
    partners = _partners(frame.path, camera, detector.partners)
    result = isr.run(raw, detector, calibs, item.settings.isr, partners)
    return result.exposure, result.metrics, result.notes


def _verify_input(item: _Item, info: VisitInfo) -> None:
    """Refuse a file that is not the one that was simulated or ingested, though it can be read."""
    frame, found = item.frame, (info.visit, info.detector)
    if found != frame.unit:
        raise FileFormatError(
            "holds visit {} detector {}".format(*found), path=frame.path,
            expected="visit {} detector {}".format(*frame.unit),
        )  # fmt: skip
    sha256 = item.input_cards["SCIHASH"]
    if frame.sha256 and sha256 != frame.sha256:
        raise FileFormatError(
            f"is not the file that was registered: its SHA-256 is {sha256}", path=frame.path,
            expected=frame.sha256, hint="fetch it again, or ingest the new file",
        )  # fmt: skip


def _partners(path: Path, camera: Camera, wanted: Sequence[int]) -> dict[int, RawFrame]:
    """Frames of the same exposure whose signal leaks into this one, as far as they are there."""
    present = set(io.list_raw(path, camera)) if wanted else set()
    return {n: io.read_raw(path, camera, n) for n in wanted if n in present}


def _if_there(
    read: Callable[[Path, Camera, int], Image], path: Path | None, camera: Camera, number: int
) -> Image | None:
    return None if path is None or not path.is_file() else read(path, camera, number)


def _diagnosed(item: _Item, exposure: Exposure, camera: Camera) -> calibrate.Result:
    """Calibrate; keep what there is of an image that fails, to be looked at."""
    path = item.output.diagnosis(*item.unit)
    try:
        result = _calibrated(item, exposure, camera)
    except UnitError as err:
        if isinstance(err.partial, Exposure):
            cards = {"SCIID": item.target.name, "FAILURE": err.cause, "REASON": str(err)}
            provenance = {**exposure.provenance, **cards, **item.provenance()}
            io.write_exposure(path, err.partial.replace(provenance=provenance))
        raise
    path.unlink(missing_ok=True)
    return result


def _calibrated(item: _Item, exposure: Exposure, camera: Camera) -> calibrate.Result:
    detector = camera.detectors.get(item.target.detector)
    result = calibrate.run(
        exposure,
        optional_table(item.space.refcat),
        item.settings.calibrate,
        psf_fwhm_min=camera.psf_fwhm_min,
        amplifiers=[amp.trimmed for amp in detector.amplifiers] if detector else (),
        passbands=camera.passbands,
    )
    return result if item.reference is None else _aligned(item, item.reference, result)


def _aligned(item: _Item, reference: Path, result: calibrate.Result) -> calibrate.Result:
    """Tie to the reference frame; keep what the header says of a calibrated image if that fails."""
    try:
        return calibrate.align(result, io.read_parquet(reference), item.settings.calibrate)
    except (AstrometryError, PhotometryError) as err:
        if item.frame.kind != "instcal":
            raise
        note = f"not tied to the reference frame, the header's coordinates are kept: {err}"
        return replace(result, notes=(*result.notes, note))


def _row(
    item: _Item, image: Exposure, numbers: Mapping[str, object], notes: Notes, outcome: Outcome
) -> rows.Row:
    """Row of ``visit_image``."""
    calib = image.photo_calib
    row: rows.Row = {
        "visitImageId": item.target.name,
        **rows.identity(image),
        "midpointMjdTai": image.info.midpoint_mjd_tai,
        "exposureTime": image.info.exptime,
        "airmass": image.info.airmass,
        "unit": image.unit,
        **rows.file(item, outcome),
        "notes": "; ".join(notes) or None,
    }
    if calib is not None:
        row |= {
            "zeroPoint": calib.zero_point,
            "zeroPointErr": calib.zero_point_err,
            "zeroPointScatter": calib.scatter,
            "nZeroPointStars": calib.n_stars,
        }
    return rows.complete(VISIT_IMAGE, row, {k: v for k, v in numbers.items() if k != "notes"})


def _products(space: Workspace, target: Target) -> tuple[Path, ...]:
    unit = target[:2]
    return space.visit_image(*unit), space.staging("calibrate", *unit)


TASK = Task(
    name="visit_image",
    label="visit image",
    stages=(Stage("isr"), Stage("calibrate")),
    phases=_phases,
    run=_run,
    products=_products,
    owned=("visit_image",),
)
