"""Inject sources into an image, subtract, detect, measure, and match what is found.

The code that subtracts and detects is the campaign's; nothing of the campaign is written.  The
engine ``frame`` subtracts as the campaign would, with a kernel fitted to the painted image.  The
engine ``local`` keeps the kernel and the noise of the image without sources: the difference is
then that of the campaign plus the filtered stamps of the sources, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.ledger import cause_of
from harness.plan import Unit
from harness.settings import Settings
from harness.study.design import StudyDesign
from harness.study.events import Window
from harness.study.ideal import ideal_curve
from harness.study.matching import Truth, chance_matches, match, reasons
from harness.study.placing import Placement, bright_stars, place
from harness.study.tables import DETECTION, PAINTING, RECOVERY
from harness.tasks.tables import optional_table
from harness.tasks.template import warped
from harness.workspace import Workspace
from pipeline import diasource, io, subtract
from pipeline.camera import Camera
from pipeline.diasource.reliability import FEATURES
from pipeline.errors import ConfigError
from pipeline.exposure import Difference, Exposure, FloatArray
from pipeline.masks import bits
from pipeline.psfphot import flux_noise, fwhm
from pipeline.schema import INJECTION_OUTCOME, to_numpy
from pipeline.subtract.fixed import FixedSubtraction
from pipeline.wcs import pixel_scale
from sims import inject

__all__ = ["Engine", "Painting", "PaintingResult"]

Engine = Literal["frame", "local"]
Subtraction = Callable[[Exposure, Exposure], Difference]

_KNOWN_RADIUS = 3.0
"""Pixels within which a detection is one that the campaign itself has."""


class _Kept(NamedTuple):
    """What the next realisation of an image needs again, where its kernel is fixed."""

    template: Exposure
    stars: FloatArray
    subtraction: FixedSubtraction


_kept: dict[tuple[Path, Unit], _Kept] = {}
"""That of the image which this process painted last."""


@dataclass(frozen=True, slots=True)
class PaintingResult:
    """How one painting went."""

    name: str
    status: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Painting:
    """One visit image, painted once; a value that travels to a worker.

    Attributes
    ----------
    space : Workspace
        The campaign, which is only read.
    folder : Path
        Where the tables go.
    unit : Unit
        Visit and detector.
    template_name, difference_hash : str
        Template of its difference, and the SHA-256 of the difference.
    settings : Settings
        Configuration of subtraction, detection and alerts.
    design : StudyDesign
        What is injected.
    study : str
        Identifier of the study.
    realisation, first_id : int
        Which painting, and the number of its first injection.
    visits : tuple of (Unit, float)
        Units of the same template with the MJD (TAI) of their midpoints, in order of time.
    engine : str
        ``frame`` or ``local``.
    """

    space: Workspace
    folder: Path
    unit: Unit
    template_name: str
    difference_hash: str
    settings: Settings
    design: StudyDesign
    study: str
    realisation: int
    first_id: int
    visits: tuple[tuple[Unit, float], ...] = ()
    engine: Engine = "frame"

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.unit[0]}_{self.unit[1]:02d}_{self.realisation:03d}"

    def table(self, name: str) -> Path:
        """File of one of its tables."""
        return self.folder / "units" / name / f"{self.name}.parquet"

    @property
    def done(self) -> bool:
        """Whether its last file is there."""
        return self.table("recovery").is_file()

    def perform(self, attempt: int = 1) -> PaintingResult:
        """Do it; a failure of a stage is the outcome of every source.

        Parameters
        ----------
        attempt : int
            1, or more after a worker died.
        """
        del attempt
        try:
            return self._perform()
        except Exception as err:
            cause, message = cause_of(err)
            return PaintingResult(self.name, "failed", f"{self.name}: {cause}: {message}")

    def lost(self, attempts: int, how: str) -> PaintingResult:
        """Say so where the worker died at every attempt, and of what."""
        message = f"{self.name}: the worker died {attempts} times: {how}"
        return PaintingResult(self.name, "failed", message)

    def _perform(self) -> PaintingResult:
        placement, images, known, subtraction = self._painted()
        stage = "subtract"
        try:
            difference = subtraction(*images)
            stage = "diasource"
            passbands = Camera.load(self.space.camera(self.settings.campaign.camera)).passbands
            found = diasource.run(difference, *images, self.settings.diasource, passbands=passbands)
        except Exception as err:
            cause, message = cause_of(err)
            failed = _failed(placement, stage, cause), DETECTION.empty()
            self._write(placement, _pair(*images), *failed, PAINTING.empty())
            return PaintingResult(self.name, "failed", f"{self.name}: {stage}: {cause}: {message}")
        judged = self._judge(placement, difference, found, known)
        self._write(placement, _pair(*images), *judged)
        return PaintingResult(self.name, "done")

    def _painted(
        self,
    ) -> tuple[Placement, tuple[Exposure, Exposure], FloatArray, Subtraction]:
        """Return injections, painted images, what is detected without them, how to subtract."""
        science = io.read_exposure(self.space.visit_image(*self.unit))
        before = io.read_difference(self.space.difference(*self.unit))
        known = _places(optional_table(self.space.staging("DiaSource", *self.unit)))
        kept = _kept.get((self.folder, self.unit))
        placement = place(
            self.design, science, before, optional_table(self.space.objects), known[:, :2],
            study=self.study, realisation=self.realisation, first_id=self.first_id,
            veto=bits(*self.settings.diasource.veto) | before.excluded, window=self._window(),
            stars=kept.stars if kept else None,
        )  # fmt: skip
        x, y = (to_numpy(placement.injections, n) for n in ("x", "y"))
        ratio = before.kernel.sum_at(x, y)
        del before  # its memory is needed
        template, subtraction = self._prepared(science, kept)
        images = _paint(science, template, ratio, placement.injections, self._noise_seed)
        return placement, images, known, subtraction

    def _prepared(self, science: Exposure, kept: _Kept | None) -> tuple[Exposure, Subtraction]:
        """Return the template on the pixels of the image, and how painted images are subtracted."""
        if kept is not None:
            return kept.template, kept.subtraction.run
        _kept.clear()
        config = self.settings.subtract
        template = warped(self.space.template(self.template_name), science, self.settings.template)
        if self.engine == "frame":
            return template, partial(subtract.run, config=config)
        fixed = FixedSubtraction.of(science, template, config)
        if self.realisation + 1 < self.design.realisations:
            _kept[self.folder, self.unit] = _Kept(template, bright_stars(science), fixed)
        return template, fixed.run

    def _window(self) -> Window | None:
        """Where and when the events of this detector happen, drawn in its first visit."""
        if not self.design.n_events:
            return None
        mask, wcs = io.read_plane(self.space.difference(*self.visits[0][0]), "MASK")
        if wcs is None:
            raise ConfigError("events need images with a WCS", key="events", expected="0")
        ends = self.visits[0][1], self.visits[-1][1]
        return Window(wcs, (int(mask.shape[0]), int(mask.shape[1])), *ends)

    @property
    def _noise_seed(self) -> int:
        return self.design.seed * 1000 + self.realisation

    def _judge(
        self,
        placement: Placement,
        difference: Difference,
        found: diasource.Result,
        known: FloatArray,
    ) -> tuple[dict[str, Any], pa.Table, pa.Table]:
        psf = difference.exposure.psf
        assert psf is not None
        ny, nx = difference.exposure.shape
        width = float(fwhm(psf.at(nx / 2, ny / 2)))
        radius = self.design.match_radius * width
        truth = Truth.of(placement.injections, difference.exposure.wcs)
        sources = _sources(found.sources)
        spots = _places(found.sources)
        placed = to_numpy(placement.injections, "placed")
        index = np.full(len(placed), -1, np.int64)
        index[placed] = match(_take(truth, placed), spots[:, :2], spots[:, 2], radius)
        chance = chance_matches(
            _take(truth, placed), spots[:, :2], spots[:, 2], index, radius, (ny, nx)
        )
        alerted = self._alerted(sources)
        lost = np.flatnonzero(placed & (index < 0))
        why = reasons(truth, found.candidates, lost, radius, self.settings.diasource.ledger)
        reliable = to_numpy(sources, "reliability") >= self.settings.diasource.reliability_cut
        columns = _measured(truth, sources, index, {"reliable": reliable, "alerted": alerted})
        columns |= _outcomes(placement, sources, index, alerted, self._cut, lost, why)
        detections = _detections(
            self, placement, sources, spots, index, chance, known,
            {"reliable": reliable, "alerted": alerted, **_features(found)},
        )  # fmt: skip
        columns["idealFraction"] = self._ideal(placement, difference, radius)
        return columns, detections, self._about(difference, found, width, radius)

    def _ideal(self, placement: Placement, difference: Difference, radius: float) -> FloatArray:
        """Probability that each source is found if there is nothing but the noise."""
        image = difference.exposure
        assert image.psf is not None
        ny, nx = image.shape
        per_electron = image.photo_calib.njy_per_electron if image.photo_calib else 1.0
        noise = float(np.sqrt(np.nanmedian(difference.null_variance[::4, ::4])))
        ideal = partial(
            ideal_curve, image.psf.at(nx / 2, ny / 2), threshold=self.settings.diasource.threshold,
            radius=radius,
        )  # fmt: skip
        photons = float(f"{per_electron / noise:.4g}")  # the same for all realisations
        fraction = ideal(photons=photons)(to_numpy(placement.injections, "trueSnr"))
        kind = np.array(placement.injections["kind"].to_pylist())
        faded = np.flatnonzero(kind == "template_only")
        if len(faded):
            fraction[faded] = ideal()(_snr_if_constant(placement, difference, faded))
        return np.where(kind == "trail", np.nan, fraction)

    def _about(
        self, difference: Difference, found: diasource.Result, width: float, radius: float
    ) -> pa.Table:
        image = difference.exposure
        assert image.wcs is not None
        scale = 3600.0 * pixel_scale(image.wcs)
        open_pixels = int(np.count_nonzero((found.mask & found.excluded) == 0))
        row = {
            "visit": self.unit[0], "detector": self.unit[1], "realisation": self.realisation,
            "area": open_pixels * (scale / 3600.0) ** 2, "pixelScale": scale,
            "fwhm": width, "matchRadius": radius, "differenceSha256": self.difference_hash,
        }  # fmt: skip
        return PAINTING.from_rows([row])

    @property
    def _cut(self) -> float:
        """Least reliability of an alert."""
        return self.settings.alerts.reliability_min

    def _alerted(self, sources: pa.Table) -> npt.NDArray[np.bool_]:
        """Tell which sources an alert would be made of once they are associated."""
        finite = [np.isfinite(to_numpy(sources, n)) for n in ("psfFlux", "apFlux")]
        return np.asarray(
            ~(to_numpy(sources, "reliability") < self._cut) & finite[0] & finite[1], bool
        )

    def _write(
        self,
        placement: Placement,
        pair: Mapping[str, Any],
        columns: dict[str, Any],
        detections: pa.Table,
        about: pa.Table,
    ) -> None:
        """Write the tables, that which tells that the painting is done last."""
        injections = placement.injections
        ids = to_numpy(injections, "injectionId")
        outcome = {n: columns.pop(n) for n in list(columns) if n in INJECTION_OUTCOME}
        outcome_table = INJECTION_OUTCOME.to_arrow(
            outcome | {"injectionId": ids}, studyId=self.study
        )
        recovery = RECOVERY.to_arrow(
            columns
            | {
                "injectionId": ids,
                "sigmaNull": placement.sigma_null,
                "starDistance": placement.star_distance,
                "edgeDistance": placement.edge_distance,
                "nullScore": placement.null_score,
                "eventId": placement.event,
                "peakMagnitude": placement.peak_magnitude,
            },
            realisation=self.realisation,
            **pair,
        )
        tables = {
            "injection": injections,
            "injection_outcome": outcome_table,
            "detection": detections,
            "painting": about,
            "recovery": recovery,
        }
        for name, table in tables.items():
            self.table(name).parent.mkdir(parents=True, exist_ok=True)
            io.write_parquet(self.table(name), table)


def _snr_if_constant(
    placement: Placement, difference: Difference, rows: npt.NDArray[np.intp]
) -> FloatArray:
    """Signal to noise of sources of the template in the noise that they have if they stay.

    A score is the change over the noise of no change.  What the template shows is then expected on
    the visit image as well, with its photons, although none come: the score of a source that has
    gone is lower than that of one that is new.  The photons are in no pixel of the visit image,
    so that the score scatters no more than that of an empty place.
    """
    image = difference.exposure
    assert image.psf is not None
    x, y, snr = (to_numpy(placement.injections, n)[rows] for n in ("x", "y", "trueSnr"))
    constant = flux_noise(image.psf, difference.null_variance, x, y)
    return np.asarray(snr * placement.sigma_null[rows] / constant)


def _pair(science: Exposure, template: Exposure) -> dict[str, Any]:
    """Columns of `RECOVERY` that are the same for all sources of an image."""
    ny, nx = science.shape
    width, other = (
        float(fwhm(e.psf.at(nx / 2, ny / 2))) if e.psf is not None else np.nan
        for e in (science, template)
    )
    return {"band": science.info.band, "seeingRatio": width / other}


def _paint(
    science: Exposure, template: Exposure, ratio: FloatArray, injections: pa.Table, seed: int
) -> tuple[Exposure, Exposure]:
    """Paint the science image, and into the template what fades away."""
    painted, _ = inject.paint(science, injections, seed=seed)
    scaled = injections.set_column(
        injections.schema.get_field_index("flux"),
        injections.schema.field("flux"),
        pa.array(to_numpy(injections, "flux") / ratio),
    )
    photons, n = template.photo_calib, int(template.provenance.get("NTMPLIN", 1))
    if photons is not None:  # a mean of n images has n times the electrons
        photons = replace(photons, njy_per_electron=photons.njy_per_electron / n)
    brighter, _ = inject.paint(
        template.replace(photo_calib=photons), scaled, seed=seed, template=True
    )
    return painted, brighter.replace(photo_calib=template.photo_calib)


def _chosen(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Choose the detections: neither below the threshold nor parents of others."""
    aside = to_numpy(table, "isSubThreshold") | to_numpy(table, "isDeblendParent")
    return ~np.asarray(aside, bool)


def _sources(table: pa.Table) -> pa.Table:
    return table.filter(pa.array(_chosen(table)))


def _features(found: diasource.Result) -> dict[str, FloatArray]:
    """Return what the classifier saw of the detections, by name."""
    rows = found.features[_chosen(found.sources)]
    return dict(zip(FEATURES, rows.T, strict=True))


def _places(table: pa.Table | None) -> FloatArray:
    """Columns, rows and signs of detections, (m, 3)."""
    if table is None or not table.num_rows:
        return np.zeros((0, 3))
    sources = _sources(table)
    sign = np.where(to_numpy(sources, "isNegative"), -1.0, 1.0)
    return np.column_stack([to_numpy(sources, "x"), to_numpy(sources, "y"), sign]).astype(float)


def _take(truth: Truth, keep: npt.NDArray[np.bool_]) -> Truth:
    return Truth(truth.at[keep], truth.trail[keep], truth.sign[keep])


def _measured(
    truth: Truth,
    sources: pa.Table,
    index: npt.NDArray[np.int64],
    cuts: Mapping[str, npt.NDArray[np.bool_]],
) -> dict[str, Any]:
    """Columns of what was measured; missing for the lost."""
    found = index >= 0

    def of(name: str) -> FloatArray:
        out = np.full(len(index), np.nan)
        out[found] = to_numpy(sources, name)[index[found]]
        return out

    dx, dy = of("x") - truth.at[:, 0], of("y") - truth.at[:, 1]
    passed = {name: np.zeros(len(index), bool) for name in cuts}
    for name, values in cuts.items():
        passed[name][found] = values[index[found]]
    return passed | {
        "detected": found,
        "distance": np.hypot(dx, dy),
        "dx": dx,
        "dy": dy,
        "dxErr": of("xErr"),
        "dyErr": of("yErr"),
        "snr": of("snr") * truth.sign,
        "psfFlux": of("psfFlux"),
        "psfFluxErr": of("psfFluxErr"),
        "reliability": of("reliability"),
    }


def _outcomes(
    placement: Placement,
    sources: pa.Table,
    index: npt.NDArray[np.int64],
    alerted: npt.NDArray[np.bool_],
    cut: float,
    lost: npt.NDArray[np.intp],
    why: list[Mapping[str, Any]],
) -> dict[str, Any]:
    """Columns of `INJECTION_OUTCOME`: one row, one outcome."""
    ids, reliability = to_numpy(sources, "diaSourceId"), to_numpy(sources, "reliability")
    rows = _unplaced(placement)
    for k in np.flatnonzero(index >= 0).tolist():
        source = int(index[k])
        rows[k] = {"outcome": "alerted", "diaSourceId": int(ids[source])}
        if not alerted[source]:
            low = bool(reliability[source] < cut)
            rows[k] |= {"outcome": "detected", "stage": "diasource" if low else "alerts",
                        "rule": "reliability" if low else "flux not finite"}  # fmt: skip
            rows[k] |= {"value": float(reliability[source]), "bound": cut} if low else {}
    for k, row in zip(lost.tolist(), why, strict=True):
        outcome = "masked" if str(row["rule"]).startswith("mask:") else "lost"
        rows[k] = {"outcome": outcome, "stage": "diasource", **row}
    names = ("outcome", "stage", "rule", "value", "bound", "diaSourceId", "candidateId")
    return {name: [row.get(name) for row in rows] for name in names}


def _unplaced(placement: Placement) -> list[dict[str, Any]]:
    """Outcome of the sources that were not painted: on a mask, or without a place."""
    rows: list[dict[str, Any]] = []
    for reason in placement.injections["reason"].to_pylist():
        masked = (reason or "").startswith("mask:")
        rows.append({"outcome": "masked" if masked else "not_placed", "rule": reason})
    return rows


def _failed(placement: Placement, stage: str, cause: str) -> dict[str, Any]:
    """Columns where the image itself was lost."""
    rows = _unplaced(placement)
    placed = to_numpy(placement.injections, "placed")
    for k in np.flatnonzero(placed).tolist():
        rows[k] = {"outcome": "lost", "stage": stage, "rule": cause}
    never = np.zeros(len(rows), bool)
    out: dict[str, Any] = dict.fromkeys(("detected", "reliable", "alerted"), never)
    return out | {n: [row.get(n) for row in rows] for n in ("outcome", "stage", "rule")}


def _detections(
    item: Painting,
    placement: Placement,
    sources: pa.Table,
    spots: FloatArray,
    index: npt.NDArray[np.int64],
    chance: npt.NDArray[np.bool_],
    known: FloatArray,
    values: Mapping[str, npt.NDArray[np.generic]],
) -> pa.Table:
    n = len(spots)
    owner: list[int | None] = [None] * n
    ids = to_numpy(placement.injections, "injectionId")
    for k in np.flatnonzero(index >= 0).tolist():
        owner[int(index[k])] = int(ids[k])
    before = np.zeros(n, bool)
    if n and len(known):
        nearest = np.hypot(*(spots[:, None, :2] - known[None, :, :2]).transpose(2, 0, 1))
        before = nearest.min(axis=1) < _KNOWN_RADIUS
    columns = {
        "x": spots[:, 0],
        "y": spots[:, 1],
        "snr": to_numpy(sources, "snr") * spots[:, 2],
        "reliability": to_numpy(sources, "reliability"),
        "injectionId": owner,
        "known": before,
        "chance": chance,
        **values,
    }
    if not n:
        return DETECTION.empty()
    where = {"visit": item.unit[0], "detector": item.unit[1], "realisation": item.realisation}
    return DETECTION.to_arrow(columns, **where)
