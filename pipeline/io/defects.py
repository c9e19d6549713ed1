"""Lists of a detector's defects as Rubin keeps them: ECSV of corners, or FITS region tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.camera import Box
from pipeline.errors import FileFormatError
from pipeline.io.catalogues import READERS, numbers

__all__ = ["read_defects"]

_CORNERS = ("x0", "y0", "width", "height")


def read_defects(path: str | Path) -> tuple[Box, ...]:
    """Read a list of defects.

    Parameters
    ----------
    path : path-like
        ECSV with ``x0 y0 width height`` (0-based, trimmed pixels), as in obs_decam_data, or a FITS
        region table with ``X Y R SHAPE`` (1-based middles and sizes), as the butler stores them.

    Returns
    -------
    tuple of Box
        Rectangles of trimmed pixels.

    Raises
    ------
    FileFormatError
        If it is neither, or has shapes other than boxes and points.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise FileFormatError("unknown kind of list", path=path, expected=".ecsv or .fits")
    columns, _, _ = reader(path)
    if all(name in columns for name in _CORNERS):
        values = np.stack([numbers(columns[name], name, path) for name in _CORNERS], axis=1)
    elif all(name in columns for name in ("X", "Y", "R", "SHAPE")):
        shapes = {str(s).strip().upper() for s in columns["SHAPE"]}
        if other := sorted(shapes - {"BOX", "POINT"}):
            raise FileFormatError(
                f"a defect of shape {other[0]}", path=path, key="SHAPE", expected="BOX or POINT"
            )
        middle = np.stack([columns["X"], columns["Y"]], axis=1).astype(float)
        sizes = np.asarray(columns["R"], float).reshape(len(middle), -1)[:, :2]
        values = np.concatenate([middle - 0.5 * (sizes + 1.0), sizes], axis=1)
    else:
        raise FileFormatError(
            "no list of defects", path=path, expected="columns x0 y0 width height, or X Y R SHAPE"
        )
    return tuple(Box(*row) for row in np.rint(values).astype(int).tolist())
