"""A completeness curve as a matplotlib figure, for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from harness.drawing.plots import draw_plot
from harness.study.completeness import CompletenessFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot"]


def plot(
    table: pa.Table,
    *,
    curve: CompletenessFit | None = None,
    label: str = "detected",
    xlabel: str = "true signal to noise",
    log: bool = True,
) -> Figure:
    """Draw fractions in bins, and a fitted curve over them.

    Parameters
    ----------
    table : pyarrow.Table
        From `harness.study.completeness`.
    curve : CompletenessFit, optional
        Fit to the same sources.
    label, xlabel : str
        Name of the points and of the axis.
    log : bool
        Whether the axis is logarithmic.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    rows = [row for row in table.to_pylist() if row["n"]]
    points = [[r["middle"], r["fraction"], r["fractionLow"], r["fractionHigh"]] for r in rows]
    series: list[dict[str, Any]] = [{"name": label, "points": points}]
    if curve is not None and rows:
        x = np.linspace(rows[0]["middle"], rows[-1]["middle"], 60)
        line = [[float(a), float(b)] for a, b in zip(x, curve(x), strict=True)]
        series.append({"name": "fit", "points": line})
    return draw_plot(
        {
            "type": "curve",
            "x": {"label": xlabel, "log": log},
            "y": {"label": "fraction", "range": [0, 1]},
            "series": series,
        }
    )
