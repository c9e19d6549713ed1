"""Labelled detections of simulated campaigns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.reliability.labels import label
from harness.study.design import StudyDesign
from harness.study.run import run_study
from harness.study.store import Study
from harness.verify.context import Context
from harness.verify.sampling import template_records
from harness.verify.view import View
from harness.workspace import Workspace
from pipeline.diasource.reliability import FEATURES
from pipeline.errors import ConfigError
from pipeline.exposure import FloatArray
from pipeline.schema import to_numpy

__all__ = ["DESIGN", "Samples", "collect"]

DESIGN = StudyDesign(
    sources=60, snr=(4.5, 100.0), hosted=0.3, negative=0.2, trails=0.15,
    trail_length=(1.0, 20.0), near_bright=0.2, bright_distance=(8.0, 150.0),
)  # fmt: skip
"""What is painted into the images that examples are taken from."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Detections with what they are.

    Attributes
    ----------
    features : ndarray, (n, len(FEATURES))
        What the classifier sees.
    label : ndarray of int, (n,)
        1 real, 0 bogus, -1 unclear.
    kind : ndarray of str, (n,)
        Class of the source, or cause of the artefact.
    snr, true_snr : ndarray, (n,)
        Measured and true signal to noise, signed; the latter NaN for artefacts.
    injected : ndarray of bool, (n,)
        Painted sources.
    width : ndarray, (n,), pixel
        FWHM of the PSF of the image.
    patch : ndarray of str, (n,)
        Piece of sky: campaign and detector, over all visits that share a template.
    image : ndarray of str, (n,)
        Campaign, visit and detector.
    campaigns : tuple of str
        Identifiers of the studies, which are hashes of their images, settings and versions.
    seeds : tuple of str
        Profile and seed of each campaign.
    area : float, deg²
        Sky searched, each visit counted.
    """

    features: FloatArray
    label: npt.NDArray[np.int64]
    kind: npt.NDArray[np.str_]
    snr: FloatArray
    true_snr: FloatArray
    injected: npt.NDArray[np.bool_]
    width: FloatArray
    patch: npt.NDArray[np.str_]
    image: npt.NDArray[np.str_]
    campaigns: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    area: float = 0.0

    def __len__(self) -> int:
        return len(self.label)

    @property
    def real(self) -> npt.NDArray[np.bool_]:
        """Detections of something astrophysical, painted or simulated."""
        return np.asarray(self.label == 1)

    def take(self, keep: npt.NDArray[np.bool_]) -> Self:
        """Return some of the detections."""
        return replace(self, **{n: getattr(self, n)[keep] for n in _COLUMNS})

    @property
    def clear(self) -> Self:
        """Detections of which it is known what they are."""
        return self.take(self.label >= 0)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Put campaigns together."""
        columns: dict[str, Any] = {
            n: np.concatenate([getattr(p, n) for p in parts]) for n in _COLUMNS
        }
        return cls(
            **columns,
            campaigns=tuple(c for p in parts for c in p.campaigns),
            seeds=tuple(s for p in parts for s in p.seeds),
            area=sum(p.area for p in parts),
        )


_COLUMNS = tuple(f.name for f in fields(Samples) if f.name not in ("campaigns", "seeds", "area"))


def collect(
    root: Path,
    overrides: Sequence[str] = (),
    *,
    design: StudyDesign = DESIGN,
    jobs: int | None = None,
    quiet: bool = False,
) -> Samples:
    """Inject sources into a simulated campaign, detect, and label every detection.

    Parameters
    ----------
    root : Path
        Workspace of a simulated campaign that has been run.
    overrides : sequence of str
        ``section.key=value`` in place of its configuration.
    design : StudyDesign
        What is painted.
    jobs : int, optional
        Worker processes.
    quiet : bool
        Whether to show no progress.

    Returns
    -------
    Samples
        Of all its images.  What is there already is not done again.

    Raises
    ------
    ConfigError
        If there is no truth.
    """
    if not (root / "truth" / "visits.parquet").is_file():
        raise ConfigError(
            "has no truth to learn from", path=root, expected="a simulated campaign that was run"
        )
    study = run_study(
        root, design, overrides=[*overrides, "diasource.classify=false"], jobs=jobs, quiet=quiet
    )
    context = Context(Workspace.open(root))
    try:
        records = template_records(context)
        campaign = context.settings.campaign
    finally:
        context.close()
    tables = {name: study.table(name) for name in ("detection", "injection", "painting")}
    searched = _units(study)
    parts = [  # one view at a time: each keeps the planes that it has read
        _of_unit(tables, View(root, *unit, records[unit]), campaign.name)
        for unit in records
        if unit in searched
    ]
    return replace(
        Samples.join(parts),
        campaigns=(str(study.about["key"]),),
        seeds=(f"{campaign.profile} {campaign.seed}",),
        area=float(to_numpy(tables["painting"], "area").sum()),
    )


def _units(study: Study) -> set[tuple[int, int]]:
    return {(u["visit"], u["detector"]) for u in study.about["units"]}


def _of_unit(tables: Mapping[str, pa.Table], view: View, campaign: str) -> Samples:
    detections, injections, painted = (_rows(table, view) for table in tables.values())
    found = label(view, detections, injections)
    n = detections.num_rows
    width = float(to_numpy(painted, "fwhm")[0]) if painted.num_rows else np.nan
    columns = [to_numpy(detections, name) for name in FEATURES]
    return Samples(
        features=np.column_stack(columns).astype(float),
        label=found["label"],
        kind=found["kind"].astype(str),
        snr=to_numpy(detections, "snr").astype(float),
        true_snr=found["trueSnr"],
        injected=to_numpy(detections, "injectionId") >= 0,
        width=np.full(n, width),
        patch=np.full(n, f"{campaign} {view.number}"),
        image=np.full(n, f"{campaign} {view.visit} {view.number}"),
    )


def _rows(table: pa.Table, view: View) -> pa.Table:
    here = (to_numpy(table, "visit") == view.visit) & (to_numpy(table, "detector") == view.number)
    return table.filter(pa.array(here))
