"""What became of the injections of a study: completeness, depth, fluxes, positions, purity."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from harness.study import estimates
from harness.study.estimates import Estimate
from harness.study.figures import completeness_figure
from harness.study.sample import Sample
from harness.study.store import TABLES
from harness.study.store import Study as Injections
from harness.study.summary import pixel_scale
from harness.verify.kind import Kind
from harness.verify.measurement import Evidence, Measurement, NotRun
from pipeline.schema import to_numpy

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Study"]

_UNITS = {
    "flux_bias": "%",
    "flux_bias_beyond_fit": "%",
    "gap": "mag",
    "position_bias": "mas",
    "position_excess": "mas",
    "position_scatter": "mas",
}
_PURITY_RANGE = (5.5, 6.5)


class Study(Kind):
    """One number about the point sources of the campaign's study, outside masks."""

    name: ClassVar[str] = "study"
    elsewhere: ClassVar[bool] = True

    quantity: Literal[
        "found_over_ideal",
        "half_found",
        "gap",
        "flux_bias",
        "flux_bias_beyond_fit",
        "flux_pull_width",
        "position_bias",
        "position_excess",
        "position_scatter",
        "position_pull_width",
        "purity",
    ]
    stage: Literal["detected", "reliable", "alerted"] = "detected"
    sources: Literal["all", "hostless", "hosted", "faint_hosts", "middle_hosts", "bright_hosts"] = (
        "all"
    )
    snr_min: float = 0.0
    snr_max: float = 1e9
    share: float = 0.5
    bogus_ratio: float = 9.0
    figure: bool = False

    @property
    def unit(self) -> str:
        """That of the quantity."""
        return _UNITS.get(self.quantity, "")

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Take the sources meant, and estimate; once for the same files, wherever they lie."""
        folder = context.study_folder
        if not (folder / "study.json").is_file():
            raise NotRun(f"there is no study {folder.name}; nightjar study --name {folder.name}")
        files = [(folder / f"{name}.parquet").stat() for name in sorted(TABLES)]
        state = tuple((f.st_ino, f.st_size, f.st_mtime_ns) for f in files)
        known: dict[Any, Any] = context.memory.setdefault("study", {})
        if state not in known:
            study = Injections.open(folder)
            known[state] = study, Sample(study.rows()).points()
        study, points = known[state]
        asked = (state, self.model_dump_json(exclude={"figure"}))
        if asked not in known:
            known[asked] = self._estimate(study, points)
        return self._measurement(known[asked], points)

    def _measurement(self, found: Estimate, points: Sample) -> Measurement:
        if found.n and np.isnan(found.value):
            raise NotRun(f"too few: {found.n} sources do not tell it", found.n)
        evidence: tuple[Evidence, ...] = ()
        if self.figure:
            title = "completeness of injected sources outside masks, and the noise limit"
            evidence = (Evidence(title, "figure", completeness_figure(points)),)
        note = f"95 %: {found.low:.4g} to {found.high:.4g} {self.unit}".rstrip()
        return Measurement(found.value, found.n, found.error, evidence=evidence, note=note)

    def _estimate(self, study: Injections, everything: Sample) -> Estimate:
        if self.quantity == "purity":
            return _purity(study, self.bogus_ratio)
        sample = self._chosen(everything).between(self.snr_min, self.snr_max)
        paintings = study.table("painting")
        scale = 1000.0 * pixel_scale(paintings)
        known: dict[str, Callable[[Sample], Estimate]] = {
            "found_over_ideal": partial(estimates.found_over_ideal, stage=self.stage),
            "half_found": partial(estimates.half_found, stage=self.stage),
            "gap": partial(estimates.depth_gap, share=self.share, stage=self.stage),
            "flux_bias": estimates.flux_bias,
            "flux_bias_beyond_fit": estimates.flux_bias_beyond_fit,
            "flux_pull_width": estimates.flux_pull_width,
            "position_bias": partial(estimates.position_bias, scale=scale),
            "position_excess": partial(estimates.position_excess, paintings=paintings),
            "position_scatter": partial(estimates.position_scatter, scale=scale),
            "position_pull_width": estimates.position_pull_width,
        }
        return known[self.quantity](sample)

    def _chosen(self, points: Sample) -> Sample:
        if self.sources in ("all", "hostless", "hosted"):
            parts = {"all": lambda: points, "hostless": points.hostless, "hosted": points.hosted}
            return parts[self.sources]()
        order = ("faint_hosts", "middle_hosts", "bright_hosts").index(self.sources)
        thirds = points.host_thirds()
        return thirds[order][2] if thirds else points.where(np.zeros(len(points), bool))


def _purity(study: Injections, bogus_ratio: float) -> Estimate:
    """Purity of detections about a measured score of 6."""
    found: Any = study.table("detection")
    snr = to_numpy(found, "snr")
    near = (np.abs(snr) >= _PURITY_RANGE[0]) & (np.abs(snr) < _PURITY_RANGE[1])
    injected, reliable = to_numpy(found, "injectionId") >= 0, to_numpy(found, "reliable")
    return estimates.purity(snr[near], injected[near], reliable[near], bogus_ratio=bogus_ratio)
