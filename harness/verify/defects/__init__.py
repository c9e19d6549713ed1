"""Known defects, each with the check that must find it.  To add one, decorate a function here.

A defect is planted in a copy of a workspace whose files are links: `Copy` replaces what it changes
and leaves the original alone.
"""

from __future__ import annotations

import importlib
import pkgutil

from harness.verify.defect import DEFECTS, Defect

__all__ = ["load_defects"]


def load_defects() -> dict[str, Defect]:
    """Import every module of this package and return the defects they define.

    Returns
    -------
    dict of Defect
        By name.
    """
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return DEFECTS
