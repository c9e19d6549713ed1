"""The one way in which pixel loops are compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core import config, environment
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys

__all__ = ["FAR", "add_row", "compiled", "pixel"]

_F = TypeVar("_F", bound=Callable[..., Any])


class _Cache(FunctionCache):  # type: ignore[misc]  # numba has no types
    """Machine code on disk, loaded without what only a compiler needs.

    Numba fills its tables of types and operations before it loads what is compiled already, which
    takes a third of a second of every process.  Machine code needs its run-time library alone;
    the compiler fills the tables itself when it is called.
    """

    def load_overload(self, sig: object, target_context: object) -> object:
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    def _index_key(self, sig: object, codegen: object) -> tuple[object, ...]:
        """Keep code with checks of bounds (NUMBA_BOUNDSCHECK=1) apart from code without."""
        key = super()._index_key(sig, codegen)
        return (*key, "boundscheck") if config.BOUNDSCHECK else tuple(key)


def _environment(module: str, constants: Sequence[object], name: str) -> environment.Environment:
    """Constants of a piece of machine code, without importing the module that it was made from.

    Numba imports that module for its global names, which machine code has no use for; that of
    array methods alone takes a tenth of a second.
    """
    found = environment.lookup_environment(name)
    if found is not None:
        return found
    made = environment.Environment({"__name__": module})
    made.consts[:] = constants
    made.env_name = name
    environment.Environment._memo[name] = made
    return made


environment._rebuild_env = _environment


def compiled(function: _F) -> _F:
    """Compile a pixel loop with numba at its first call and keep the machine code on disk.

    No ``fastmath``: results must not depend on the processor.  Arguments must always come with
    the same types, since every new combination is compiled anew (0.5 to 2 s).

    Parameters
    ----------
    function : callable
        A loop in the part of Python that numba compiles.

    Returns
    -------
    callable
        The compiled loop, with the signature of the function.
    """
    loop = numba.njit(nogil=True, error_model="numpy")(function)
    if hasattr(loop, "_cache"):  # not where compilation is switched off
        loop._cache = _Cache(function)
    return cast(_F, loop)


FAR = 1 << 31
"""Beyond every image, yet small enough that sums of indices do not overflow."""


@compiled
def pixel(place: float) -> int:
    """Whole part of a coordinate, for use as an index.

    The conversion of NaN, infinity or a huge number to an integer is undefined; ``-FAR`` stands
    for them, which every comparison with the size of an image finds outside.

    Parameters
    ----------
    place : float, pixel
        A coordinate, anything at all.

    Returns
    -------
    int
        Its whole part, or ``-FAR``.
    """
    return int(place) if abs(place) < FAR else -FAR


@compiled
def add_row(
    to: npt.NDArray[np.floating], row: npt.NDArray[np.floating], factor: float | np.floating
) -> None:
    """Add a row times a factor to another; called with views from zero on, it becomes vectors.

    Parameters
    ----------
    to : ndarray, (nx,)
        Changed in place.
    row : ndarray, (nx,)
        What is added.
    factor : float
        Times this.
    """
    for x in range(len(to)):
        to[x] += factor * row[x]
