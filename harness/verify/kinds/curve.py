"""Injection and recovery: completeness, biases and pulls of transients whose truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from harness.verify.curves import QUANTITIES, Transients, completeness_figure, transients
from harness.verify.kind import Kind
from harness.verify.measurement import Measurement

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Curve"]


class Curve(Kind):
    """One number about the transients of known truth between two signal-to-noise ratios."""

    name: ClassVar[str] = "curve"

    quantity: Literal[
        "detected",
        "alerted",
        "recovered",
        "position",
        "flux_pull",
        "flux_pull_width",
        "flux_pull_mean",
        "position_pull_width",
        "flux_bias",
        "snr50",
        "purity",
        "faint_completeness_9",
        "faint_completeness_4",
        "artefacts_rejected",
        "calibration_error",
        "worst_class",
        "one_object",
    ]
    snr_min: float = 10.0
    snr_max: float = 1e9
    figure: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Curve:
        if not 0 < self.snr_min < self.snr_max:
            raise ValueError(f"snr_min {self.snr_min:g} is not below snr_max {self.snr_max:g}")
        return self

    @property
    def unit(self) -> str:
        """That of the quantity."""
        return QUANTITIES[self.quantity].unit

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Match truth and catalogue, then compute the quantity."""
        everything = transients(context)
        sample = everything.between(self.snr_min, self.snr_max)
        if not len(sample):
            return Measurement(float("nan"), 0, broken=everything.broken)
        value, stderr, n = QUANTITIES[self.quantity].function(sample)
        evidence = (completeness_figure(everything),) if self.figure else ()
        lost = tuple(_lost(sample)[:50])
        return Measurement(
            value, n, stderr, failing=lost, evidence=evidence, broken=everything.broken
        )


def _lost(sample: Transients) -> list[dict[str, Any]]:
    rows = [r for r in sample.rows if not r["alerted"]]
    return [
        {k: r[k] for k in ("visit", "detector", "truthId", "kind", "x", "y", "trueSnr", "lost")}
        for r in sorted(rows, key=lambda r: -r["trueSnr"])
    ]
