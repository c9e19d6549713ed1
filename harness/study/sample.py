"""The rows of a study as arrays, and the subsets that are evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.exposure import FloatArray
from pipeline.schema import to_numpy

__all__ = ["Sample"]

_ZERO_POINT = 31.4  # AB magnitude of 1 nJy
_LEAST_HOSTED = 6


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Injections with what became of them.

    Attributes
    ----------
    table : pyarrow.Table
        Rows of `Study.rows`.
    """

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        """Return a column as an array, see `pipeline.schema.to_numpy`."""
        return to_numpy(self.table, name)

    def where(self, keep: npt.ArrayLike) -> Sample:
        """Return the rows for which `keep` is true."""
        return Sample(self.table.filter(pa.array(np.asarray(keep, bool))))

    def placed(self) -> npt.NDArray[np.bool_]:
        """Return which were painted and do not lie on a mask, (n,)."""
        outcome = np.array(self.table["outcome"].to_pylist(), str)
        return ~np.isin(outcome, ("masked", "not_placed"))

    def points(self) -> Sample:
        """Return the point sources that brighten, on pixels where they can be found.

        Epochs at which an event has not begun are none.
        """
        kind = np.array(self.table["kind"].to_pylist(), str)
        return self.where((kind == "point") & self.placed() & (self.numbers("flux") > 0))

    def hostless(self) -> Sample:
        """Return those that lie on no galaxy."""
        return self.where(~np.isfinite(self.numbers("hostOffset")))

    def hosted(self) -> Sample:
        """Return those that lie on a galaxy."""
        return self.where(np.isfinite(self.numbers("hostOffset")))

    def host_thirds(self) -> list[tuple[float, float, Sample]]:
        """Return the hosted ones in thirds of surface brightness, faintest first, with its ends.

        None where there are too few.
        """
        hosted = self.hosted()
        brightness = hosted.numbers("hostSurfaceBrightness")
        if len(hosted) < _LEAST_HOSTED:
            return []
        edges = np.quantile(brightness, [0, 1 / 3, 2 / 3, 1]).tolist()
        return [
            (low, high, hosted.where((brightness >= low) & (brightness <= high)))
            for low, high in pairwise(edges)
        ]

    def between(self, low: float, high: float) -> Sample:
        """Return those of a range of true SNR."""
        return self.where((self.snr >= low) & (self.snr < high))

    def numbers(self, name: str) -> FloatArray:
        """Return a column as floats."""
        return np.asarray(self[name], float)

    def flags(self, name: str) -> npt.NDArray[np.bool_]:
        """Return a column as truth values."""
        return np.asarray(self[name], bool)

    @property
    def snr(self) -> FloatArray:
        """True signal to noise, without its sign."""
        return np.abs(self.numbers("trueSnr"))

    @property
    def magnitude(self) -> FloatArray:
        """True AB magnitude on the difference."""
        return np.asarray(_ZERO_POINT - 2.5 * np.log10(np.abs(self.numbers("flux"))))

    @property
    def unit(self) -> npt.NDArray[np.int64]:
        """Exposure and detector as one number."""
        return np.asarray(self.numbers("visit") * 1000 + self.numbers("detector"), np.int64)
