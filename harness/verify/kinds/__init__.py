"""The kinds of checks.  Every module of this package that defines a `Kind` adds one.

To add one, write one file here; the loader, the JSON schema and the documentation follow.
"""

from __future__ import annotations

import importlib
import pkgutil

from harness.verify.kind import Kind

__all__ = ["KINDS", "load_kinds"]

KINDS: dict[str, type[Kind]] = {}
"""Every kind by its name, filled by `load_kinds`."""


def load_kinds() -> dict[str, type[Kind]]:
    """Import every module of this package and return the kinds they define.

    Returns
    -------
    dict
        Classes of checks by the name of the kind.
    """
    if not KINDS:
        for module in pkgutil.iter_modules(__path__):
            importlib.import_module(f"{__name__}.{module.name}")
        KINDS.update({k.name: k for k in sorted(Kind.__subclasses__(), key=lambda k: k.name)})
    return KINDS
