"""The stages composed: what a worker does for each kind of order.

Every task is a generator that yields at the end of each stage with the notes of that stage;
`perform` runs it stage by stage, measures each one, and turns an error into a record with a
cause.  The science is in `pipeline`; here are only reading, the order of the calls, and writing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness.execute import rows
from harness.execute.orders import (
    AlertOrder,
    DifferenceOrder,
    ForcedOrder,
    Order,
    StageKey,
    TemplateOrder,
    VisitImageOrder,
)
from harness.hashes import combine, file_hash
from harness.ledger import (
    DONE,
    FAILED,
    Measure,
    Outcome,
    StageRecord,
    blocked,
    cause_of,
    measuring,
    now_mjd_tai,
)
from harness.log import Collector, collecting
from pipeline import alerts, calibrate, diaobject, diasource, io, isr, subtract, template
from pipeline.camera import Camera
from pipeline.errors import AstrometryError, PhotometryError, UnitError
from pipeline.exposure import Difference, Exposure, RawFrame

__all__ = ["cards_of", "perform"]

Notes = Sequence[str]
Task = Callable[[Any, Outcome], Iterator[Notes]]

_LOGGER = logging.getLogger(__name__)


def perform(order: Order) -> Outcome:
    """Do one task, whatever happens.

    Parameters
    ----------
    order : Order
        What to do.

    Returns
    -------
    Outcome
        With one record per stage; after a failure the later stages are ``blocked``.
    """
    outcome = Outcome(order.visit, order.detector)
    steps = _TASKS[type(order)](order, outcome)
    where: dict[str, Any] = {"visit": order.visit, "detector": order.detector}
    if order.template_id:
        where["template"] = order.template_id
    with collecting(**where) as log:
        for key in order.keys:
            trouble = outcome.trouble
            if trouble is not None:
                record = blocked(order.visit, order.detector, key.stage, trouble.stage)
            else:
                record = _step(steps, order, key, log)
            outcome.stages.append(record.replace(template_id=order.template_id))
    outcome.logs += log.records
    return outcome


def _step(steps: Iterator[Notes], order: Order, key: StageKey, log: Collector) -> StageRecord:
    log.context["stage"] = key.stage
    status, cause, message, notes = DONE, None, None, ""
    with measuring() as measure:
        try:
            notes = "; ".join(next(steps))
        except Exception as err:
            status, (cause, message) = FAILED, cause_of(err)
            unexpected = cause == "INTERNAL"
            _LOGGER.log(
                logging.ERROR if unexpected else logging.WARNING,
                "%s failed: %s: %s", key.stage, cause, message,
                exc_info=err if unexpected else None,
            )  # fmt: skip
    if notes:
        _LOGGER.info("%s", notes)
    _log_cost(key.stage, status, measure)
    return StageRecord(
        order.visit,
        order.detector,
        key.stage,
        status,
        cause,
        message,
        attempts=order.attempt,
        input_hash=key.input_hash,
        config_hash=key.config_hash,
        stage_version=key.version,
        notes=notes or None,
        **measure.costs(),  # type: ignore[arg-type]
    )


def _log_cost(stage: str, status: str, measure: Measure) -> None:
    _LOGGER.info(
        "%s %s in %.2f s (%.2f CPU-s, %.0f MiB)",
        stage, status, measure.wall_s, measure.cpu_s, measure.peak_rss_mib,
    )  # fmt: skip


def cards_of(order: Order) -> dict[str, str | int]:
    """Provenance cards that every product of an order carries."""
    return {
        "STAGEVER": " ".join(f"{key.stage}={key.version}" for key in order.keys),
        "CONFHASH": combine(key.config_hash for key in order.keys)[:12],
        **order.cards,
    }


def _visit_image(order: VisitImageOrder, outcome: Outcome) -> Iterator[Notes]:
    camera = Camera.load(order.space.camera(order.settings.campaign.camera))
    exposure, metrics, notes = _detrended(order, camera)
    yield notes
    result = _diagnosed(order, exposure, camera)
    cards = {"SCIID": _name(*order.unit), "SCIHASH": order.input_sha256, **cards_of(order)}
    image = result.visit_image.replace(provenance={**exposure.provenance, **cards})
    path = order.space.visit_image(*order.unit)
    io.write_exposure(path, image)
    _wrote(outcome, path)
    io.write_parquet(order.space.staging("calibrate", *order.unit), result.sources)
    outcome.rows |= rows.visit_image(
        order, image, metrics, result.summary, [*notes, *result.notes], outcome
    )
    yield result.notes


def _diagnosed(order: VisitImageOrder, exposure: Exposure, camera: Camera) -> calibrate.Result:
    """Calibrate; keep what there is of an image that fails, to be looked at."""
    path = order.space.diagnosis(*order.unit)
    try:
        result = _calibrated(order, exposure, camera)
    except UnitError as err:
        if isinstance(err.partial, Exposure):
            cards = {"SCIID": _name(*order.unit), "FAILURE": err.cause, "REASON": str(err)}
            provenance = {**exposure.provenance, **cards, **cards_of(order)}
            io.write_exposure(path, err.partial.replace(provenance=provenance))
        raise
    path.unlink(missing_ok=True)
    return result


def _calibrated(order: VisitImageOrder, exposure: Exposure, camera: Camera) -> calibrate.Result:
    config = order.settings.calibrate
    detector = camera.detectors.get(order.detector)
    result = calibrate.run(
        exposure,
        _table(order.space.refcat),
        config,
        psf_fwhm_min=camera.psf_fwhm_min,
        amplifiers=[amp.trimmed for amp in detector.amplifiers] if detector else (),
        passbands=camera.passbands,
    )
    if order.reference is None:
        return result
    return _aligned(order, result)


def _aligned(order: VisitImageOrder, result: calibrate.Result) -> calibrate.Result:
    """Tie to the reference frame; keep what the header says of a calibrated image if that fails."""
    assert order.reference is not None
    try:
        return calibrate.align(result, io.read_parquet(order.reference), order.settings.calibrate)
    except (AstrometryError, PhotometryError) as err:
        if order.frame.kind != "instcal":
            raise
        note = f"not tied to the reference frame, the header's coordinates are kept: {err}"
        return replace(result, notes=(*result.notes, note))


def _detrended(
    order: VisitImageOrder, camera: Camera
) -> tuple[Exposure, Mapping[str, float], Notes]:
    frame = order.frame
    if frame.kind == "instcal":
        exposure = io.read_instcal(frame.path, frame.detector)
        return exposure, {}, ("instrument signature removed by the observatory",)
    if frame.kind == "generic":
        exposure = io.read_generic(frame.path, frame.visit)
        return exposure, {}, ("enters at calibrate: taken as detrended",)
    raw = io.read_raw(frame.path, camera, frame.detector)
    detector = camera.detector(frame.detector)
    calibs = isr.Calibs(
        bias=_calibration(order.space.bias(frame.detector)),
        flat=_calibration(order.space.flat(frame.band, frame.detector)),
    )
    partners = _partners(frame.path, camera, detector.partners)
    result = isr.run(raw, detector, calibs, order.settings.isr, partners)
    return result.exposure, result.metrics, result.notes


def _partners(path: Path, camera: Camera, wanted: Sequence[int]) -> dict[int, RawFrame]:
    """Frames of the same exposure whose signal leaks into this one, as far as they are there."""
    present = set(io.list_raw(path, camera)) if wanted else set()
    return {n: io.read_raw(path, camera, n) for n in wanted if n in present}


def _template(order: TemplateOrder, outcome: Outcome) -> Iterator[Notes]:
    inputs = [io.read_exposure(i.path) for i in order.inputs]
    wcs, shape = template.patch(inputs, order.settings.template)
    result = template.run(inputs, wcs, shape, order.settings.template)
    members = [row for row in result.inputs.to_pylist() if row["used"]]
    names = [_name(row["visit"], row["detector"]) for row in members]
    cards = {**_inputs_cards(order.template_id or "", names), **cards_of(order)}
    image = result.template.replace(provenance=cards)
    path = order.products[0]
    io.write_exposure(path, image)
    _wrote(outcome, path)
    outcome.rows |= rows.template(order, image, inputs, members, result.notes, outcome)
    yield result.notes


def _inputs_cards(name: str, inputs: Sequence[str]) -> dict[str, str | int]:
    numbered: dict[str, str | int] = {f"TMPLIN{i}": v for i, v in enumerate(inputs, start=1)}
    return {"TMPLID": name, "NTMPLIN": len(inputs), **numbered}


def _difference(order: DifferenceOrder, outcome: Outcome) -> Iterator[Notes]:
    settings = order.settings
    science = io.read_exposure(order.space.visit_image(*order.unit))
    warped = _warped(order, science)
    inputs = {k: v for k, v in warped.provenance.items() if k.startswith(("TMPLI", "NTMPL"))}
    difference = subtract.run(science, warped, settings.subtract)
    yield ()
    try:
        result = diasource.run(
            difference,
            science,
            warped,
            settings.diasource,
            now_mjd_tai=now_mjd_tai(),
            passbands=Camera.load(order.space.camera(settings.campaign.camera)).passbands,
        )
    except Exception:  # the difference is a product even if nothing could be measured on it
        _write_difference(order, difference, outcome, {}, inputs)
        raise
    marked = _with_mask(difference, result.mask)
    _write_difference(order, marked, outcome, result.metrics, inputs)
    io.write_parquet(order.space.staging("DiaSource", *order.unit), result.sources)
    io.write_parquet(order.space.staging("candidate", *order.unit), result.candidates)
    yield ()


def _warped(order: DifferenceOrder | AlertOrder, science: Exposure) -> Exposure:
    """Template on the pixels of a science image, with the template's own provenance."""
    coadd = io.read_exposure(order.space.template(order.template_name))
    warped = template.warp(coadd, science.wcs, science.shape, order.settings.template)
    return warped.replace(provenance=coadd.provenance)


def _with_mask(difference: Difference, mask: Any) -> Difference:
    return Difference(
        difference.exposure.replace(mask=mask),
        difference.score,
        difference.null_variance,
        difference.kernel,
        difference.metrics,
    )


def _write_difference(
    order: DifferenceOrder,
    difference: Difference,
    outcome: Outcome,
    metrics: Mapping[str, float],
    inputs: Mapping[str, Any],
) -> None:
    cards = {
        "SCIID": _name(*order.unit),
        "SCIHASH": order.science_sha256,
        "TMPLHASH": order.template_sha256,
        **inputs,
        "KRNLHDU": "KERNEL",
        **cards_of(order),
    }
    exposure = difference.exposure.replace(provenance=cards)
    path = order.space.difference(*order.unit)
    io.write_difference(
        path,
        Difference(
            exposure,
            difference.score,
            difference.null_variance,
            difference.kernel,
            difference.metrics,
        ),
    )
    _wrote(outcome, path)
    outcome.rows |= rows.difference(order, difference, metrics, outcome)


def _forced(order: ForcedOrder, outcome: Outcome) -> Iterator[Notes]:
    difference = io.read_difference(order.space.difference(*order.unit))
    science = io.read_exposure(order.space.visit_image(*order.unit))
    table = diaobject.force(
        order.objects,
        difference,
        science,
        order.settings.diaobject,
        processed_mjd_tai=now_mjd_tai(),
    )
    io.write_parquet(order.products[0], table)
    yield ()


def _alerts(order: AlertOrder, outcome: Outcome) -> Iterator[Notes]:
    difference = io.read_difference(order.space.difference(*order.unit))
    science = io.read_exposure(order.space.visit_image(*order.unit))
    tables = dict(order.tables)
    surroundings = alerts.Surroundings(
        ss_sources=tables.pop("ss_sources", None),
        ss_history=tables.pop("ss_history", None),
        matches=tables.pop("matches", None),
        software=order.cards.get("SOFTVER"),
        run=order.cards.get("RUNID"),
    )
    result = alerts.run(
        **tables,
        difference=difference,
        science=science,
        template=_warped(order, science),
        config=order.settings.alerts,
        surroundings=surroundings,
        processed_mjd_tai=now_mjd_tai(),
    )
    path = order.space.alerts(*order.unit)
    alerts.write(path, result.packets)
    _wrote(outcome, path)
    io.write_parquet(order.space.staging("alert", *order.unit), result.ledger)
    yield ()


def _wrote(outcome: Outcome, path: Path) -> None:
    outcome.files[str(path)] = file_hash(path)


def _name(visit: int, detector: int) -> str:
    return f"{visit}_{detector:02d}"


def _table(path: Path) -> pa.Table | None:
    return _read_table(path, path.stat().st_mtime_ns) if path.is_file() else None


@lru_cache(maxsize=4)
def _read_table(path: Path, _stamp: int) -> pa.Table:
    return io.read_parquet(path)


def _calibration(path: Path) -> Any:
    if not path.is_file():
        return None
    with io.open_fits(path, expected="a calibration frame") as hdus:
        return np.ascontiguousarray(hdus["IMAGE"].data, np.float32)


_TASKS: dict[type[Order], Task] = {
    VisitImageOrder: _visit_image,
    TemplateOrder: _template,
    DifferenceOrder: _difference,
    ForcedOrder: _forced,
    AlertOrder: _alerts,
}
