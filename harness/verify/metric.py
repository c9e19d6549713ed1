"""What a metric is: a registered measurement of one image, and how one is declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pipeline.masks import MASK_PLANES

__all__ = ["METRICS", "Metric", "Reduction", "Sample", "check_arguments", "metric"]

Reduction = Literal["worst", "mean", "median", "sum", "pooled"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a metric found in one unit.

    Attributes
    ----------
    value : float
        The number.
    n : int
        Pixels, stars or sources it rests on; a sample of none is left out.
    stderr : float, optional
        Its standard error.
    nans : int
        Values that were not numbers and were left out.
    note : str
        A word on it.
    rows : tuple of dict
        Details by subject, for metrics that other checks evaluate further.
    """

    value: float
    n: int
    stderr: float | None = None
    nans: int = 0
    note: str = ""
    rows: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """A registered metric.

    Attributes
    ----------
    name, unit : str
        Name in case files, and unit of the value, empty for a pure number.
    product : str
        ``visit_image`` or ``difference``: the product whose units it runs over.
    reads : tuple of str
        Attributes of `View` that it uses; what changes none of their files cannot change it.
    reduce : str
        How units combine: ``worst`` against the bound, ``mean``, ``median``, ``sum`` or
        ``pooled`` (weighted by n, standard errors added in quadrature).
    function : callable
        Measures one unit.
    summary : str
        First line of its documentation.
    """

    name: str
    unit: str
    product: str
    reads: tuple[str, ...]
    reduce: Reduction
    function: Callable[..., Sample]
    summary: str


METRICS: dict[str, Metric] = {}
"""Every metric by its name, filled by `load_metrics`."""

_Function = Callable[..., Sample]


def check_arguments(function: _Function, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that a metric cannot take.

    Parameters
    ----------
    function : callable
        The metric; its first parameter is the view.
    arguments : mapping
        Its other arguments by name.

    Raises
    ------
    ValueError
        For an unknown or missing argument, a value of another type or an unknown mask plane.
    """
    try:
        inspect.signature(function).bind(None, **arguments)
    except TypeError as err:
        raise ValueError(f"arguments of the metric: {err}") from err
    hints = get_type_hints(function)
    for name, value in arguments.items():
        try:
            TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as err:
            raise ValueError(f"argument {name!r}: {err.errors()[0]['msg']}") from err
    if unknown := sorted(set(arguments.get("planes", ())) - set(MASK_PLANES)):
        raise ValueError(f"unknown mask plane {unknown[0]!r}; known: {', '.join(MASK_PLANES)}")


def metric(
    name: str,
    *,
    unit: str,
    product: Literal["visit_image", "difference"],
    reads: tuple[str, ...],
    reduce: Reduction = "worst",
) -> Callable[[_Function], _Function]:
    """Register a function ``f(view, **args) -> Sample`` as a metric; see `Metric`.

    Parameters
    ----------
    name : str
        Name by which case files ask for it.
    unit : str
        Unit of the values.
    product : str
        ``visit_image`` or ``difference``.
    reads : tuple of str
        Planes and tables that it needs.
    reduce : str
        How the units are combined.

    Returns
    -------
    callable
        A decorator that returns the function as it is.
    """

    def register(function: _Function) -> _Function:
        if name in METRICS:
            raise ValueError(f"two metrics are called {name!r}")
        summary = (function.__doc__ or "").strip().split("\n")[0]
        METRICS[name] = Metric(name, unit, product, reads, reduce, function, summary)
        return function

    return register
