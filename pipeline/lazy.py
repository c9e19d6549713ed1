"""Names of a package that are loaded at their first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

__all__ = ["lazy"]


class _Package(ModuleType):
    """A package whose functions stand before the submodules of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        """Bind ``run`` of ``package.run``, which the import system would hide by the module."""
        if isinstance(value, ModuleType) and name in self.__dict__["_homes"]:
            value = getattr(value, name)
        super().__setattr__(name, value)


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
    sys.modules[package].__dict__["_homes"] = homes
    sys.modules[package].__class__ = _Package

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return find
