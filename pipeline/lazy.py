"""Names of a package that are loaded at their first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable

__all__ = ["lazy"]


def lazy(package: str, **homes: str) -> Callable[[str], object]:
    """Make the ``__getattr__`` of a package of which some programs need a part only.

    Parameters
    ----------
    package : str
        Its name.
    **homes : str
        Name of a submodule for every name that it gives to the package.

    Returns
    -------
    callable
        Finds these names and raises AttributeError for others.
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return find
