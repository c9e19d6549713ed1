"""Registered measurements of one image, each a small function of a `harness.verify.view.View`.

A metric says what it is called, in which unit it is, of which product it speaks, which files it
reads and how values of several units combine.  To add one, decorate a function with `metric` in a
module of this package.
"""

from __future__ import annotations

import importlib
import pkgutil

from harness.verify.metric import METRICS, Metric

__all__ = ["load_metrics"]


def load_metrics() -> dict[str, Metric]:
    """Import every module of this package and return the metrics they define.

    Returns
    -------
    dict of Metric
        By name.
    """
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return METRICS
