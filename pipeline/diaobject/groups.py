"""Sums, extremes and quantiles over runs of equal keys, for many light curves at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.compiled import compiled
from pipeline.exposure import FloatArray

__all__ = ["Groups"]

_Integers = npt.NDArray[np.int64]
_SHORT = 64


@compiled
def _sort_runs(starts: _Integers, count: _Integers, values: FloatArray) -> None:
    """Sort each run in place: by insertion where it is short, which most light curves are."""
    for g in range(len(starts)):
        first, last = starts[g], starts[g] + count[g]
        if count[g] > _SHORT:
            values[first:last] = np.sort(values[first:last])
            continue
        for i in range(first + 1, last):
            value, k = values[i], i
            while k > first and values[k - 1] > value:
                values[k] = values[k - 1]
                k -= 1
            values[k] = value


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Rows that have been sorted so that equal keys stand together.

    Attributes
    ----------
    keys : ndarray, (m,)
        The different keys, ascending.
    starts : ndarray, (m,)
        First row of each.
    count : ndarray, (m,)
        Rows of each.
    index : ndarray, (n,)
        Which group each row belongs to.
    """

    keys: _Integers
    starts: _Integers
    count: _Integers
    index: _Integers

    @classmethod
    def of(cls, sorted_keys: npt.ArrayLike) -> Groups:
        """Find the runs in keys that are sorted already, ``(n,)``."""
        keys = np.asarray(sorted_keys, np.int64)
        first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])
        count = np.diff(np.r_[first, len(keys)])
        return cls(keys[first], first, count, np.repeat(np.arange(len(first)), count))

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.starts)

    def sum(self, values: npt.ArrayLike) -> FloatArray:
        """Sum over each group; further axes of the values are kept."""
        return self._reduce(np.add, values)

    def min(self, values: npt.ArrayLike) -> FloatArray:
        """Least value of each group."""
        return self._reduce(np.minimum, values)

    def max(self, values: npt.ArrayLike) -> FloatArray:
        """Largest value of each group."""
        return self._reduce(np.maximum, values)

    def mean(self, values: npt.ArrayLike) -> FloatArray:
        """Plain mean of each group."""
        return self.sum(values) / self.count

    def spread(self, per_group: npt.ArrayLike) -> FloatArray:
        """Repeat one value per group for each of its rows."""
        return np.asarray(np.asarray(per_group)[self.index])

    def quantiles(self, values: npt.ArrayLike, fractions: npt.ArrayLike) -> FloatArray:
        """Quantiles of each group, interpolated linearly (Hyndman & Fan 1996, type 7).

        Parameters
        ----------
        values : array-like, (n,)
            Values without NaN.
        fractions : array-like, (q,)
            Between 0 and 1.

        Returns
        -------
        ndarray, (q, m)
        """
        ranked = np.array(values, float)
        _sort_runs(self.starts, self.count, ranked)
        place = np.asarray(fractions, float)[:, None] * (self.count - 1)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, self.count - 1)
        a, b = ranked[self.starts + low], ranked[self.starts + high]
        return np.asarray(a + (place - low) * (b - a))

    def _reduce(self, function: np.ufunc, values: npt.ArrayLike) -> FloatArray:
        array = np.ascontiguousarray(values, float)
        if not len(self):
            return np.zeros((0, *array.shape[1:]))
        return np.asarray(function.reduceat(array, self.starts, axis=0))
