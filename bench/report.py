"""How the benchmarks say what they measured: one JSON object per line.

Name, stage, value, unit, bound, goal, whether it holds (null where nothing is asked), population.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

__all__ = ["KEYS", "Report", "reporter"]

KEYS = ("name", "stage", "value", "unit", "bound", "goal", "holds", "population")
Report = Callable[..., None]


def reporter(stage: str) -> Report:
    """Return a function that prints the measurements of a stage, see `_report`."""
    return partial(_report, stage=stage)


def _report(
    name: str,
    value: float | None,
    unit: str,
    bound: float | str | None,
    population: float | str,
    *,
    stage: str,
    goal: float | str | None = None,
    low: float | None = None,
    least: bool = False,
    stderr: float | None = None,
    holds: bool | None = None,
    **more: object,
) -> None:
    """Print one measurement.

    It holds up to its bound, from `low` on where that is given; with `least`, from its bound on.
    Three standard errors must fit into half the interval, or into the bound where there is one
    end only.  What has no bound in numbers holds as `holds` says.
    """
    if holds is None and value is not None and isinstance(bound, int | float):
        holds = value >= bound if least else value <= bound and (low is None or value >= low)
        if stderr is not None:
            room = abs(value - bound) if least else bound if low is None else 0.5 * (bound - low)
            holds = holds and 3.0 * stderr <= room
    number = None if value is None else float(f"{float(value):.6g}")
    shown = bound
    if least or low is not None:
        shown = f">= {bound:g}" if least else f"{low:g} to {bound:g}"
    told = (name, stage, number, unit, shown, goal, None if holds is None else bool(holds))
    row = dict(zip(KEYS, (*told, _plain(population)), strict=True))
    row |= {} if stderr is None else {"stderr": float(f"{float(stderr):.3g}")}
    print(json.dumps(row | more), flush=True)


def _plain(population: float | str) -> float | str:
    return population if isinstance(population, str) else int(population)
