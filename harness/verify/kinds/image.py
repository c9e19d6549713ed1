"""Registered measurements of pixels, one per unit, combined over the campaign."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from harness.verify.kind import Kind
from harness.verify.measurement import Evidence, Measurement
from harness.verify.metric import METRICS, Reduction, Sample, check_arguments
from harness.verify.metrics import load_metrics
from harness.verify.sampling import Request, combine, combine_groups, measure_images

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context

__all__ = ["Image"]


class Image(Kind):
    """A metric of `harness.verify.metrics` over all units that have the product.

    With `quantile` the rows of the samples are averaged by their group over all units first, a
    pair of amplifiers for instance, and that quantile of the absolute values is judged.
    """

    name: ClassVar[str] = "image"

    metric: str
    args: dict[str, Any] = Field(default={})
    reduce: Reduction | None = None
    quantile: float | None = Field(default=None, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _known(self) -> Image:
        if self.metric not in load_metrics():
            import difflib

            close = difflib.get_close_matches(self.metric, METRICS, 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"unknown metric {self.metric!r}{hint}")
        check_arguments(METRICS[self.metric].function, self.args)
        return self

    @property
    def unit(self) -> str:
        """That of the metric."""
        return METRICS[self.metric].unit

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Measure all units and combine them."""
        request = Request.of(self.metric, self.args)
        outcomes = measure_images(context, [request])[request]
        if self.quantile is not None:
            return combine_groups(outcomes, self.quantile)
        got = combine(outcomes, self.reduce or METRICS[self.metric].reduce, bound)
        rows = [
            [v, d, s.value, s.stderr, s.n, s.note]
            for (v, d), s in sorted(outcomes.items())
            if isinstance(s, Sample)
        ]
        columns = ["visit", "detector", "value", "standard error", "n", "note"]
        table = Evidence(f"{self.metric} by unit", "table", {"columns": columns, "rows": rows})
        return replace(got, evidence=(table,))
