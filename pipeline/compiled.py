"""The one way in which pixel loops are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["compiled"]

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile a pixel loop with numba at its first call and keep the machine code on disk.

    No ``fastmath``: results must not depend on the processor.  Arguments must always come with
    the same types, since every new combination is compiled anew (0.5 to 2 s).
    """
    return cast(_F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
