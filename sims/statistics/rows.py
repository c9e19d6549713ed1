"""What a comparison of measured values with their inputs consists of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pipeline.exposure import FloatArray

__all__ = ["Curve", "Row", "Statistics"]


_ARRAYS = ("x", "measured", "expected")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value beside what it should be.

    Attributes
    ----------
    name : str
        What was measured.
    subject : str
        On what: a channel, a visit, a class of sources.
    measured, expected : float
        The value found in the frames and the one that was put in.
    bound : float
        Largest difference allowed, relative to what is expected if `relative`.
    unit : str
        Unit of the values.
    population : int
        Pixels, stars, events or frames that went in.
    relative : bool
        Whether `bound` is relative.
    """

    name: str
    subject: str
    measured: float
    expected: float
    bound: float
    unit: str
    population: int
    relative: bool = False

    @property
    def error(self) -> float:
        """Difference of measured and expected value in the sense of `bound`."""
        difference = self.measured - self.expected
        return abs(difference / self.expected) if self.relative else abs(difference)

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound; never where it is not a number."""
        return bool(self.error <= self.bound)


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Data of a figure: points that were measured and the line they should follow.

    Attributes
    ----------
    name : str
        Which statistic it belongs to.
    x_label, y_label : str
        Quantities with units.
    x, measured, expected : ndarray, (n,)
        The points, in ascending `x` where a line makes sense.
    """

    name: str
    x_label: str
    y_label: str
    x: FloatArray
    measured: FloatArray
    expected: FloatArray


@dataclass(frozen=True, slots=True)
class Statistics:
    """Rows of a table and the data of its figures."""

    rows: tuple[Row, ...]
    curves: tuple[Curve, ...] = ()

    @classmethod
    def join(cls, parts: Iterable[Statistics]) -> Statistics:
        """Return several sets as one."""
        every = list(parts)
        return cls(
            tuple(row for part in every for row in part.rows),
            tuple(curve for part in every for curve in part.curves),
        )

    def as_json(self) -> dict[str, object]:
        """Return rows, with what follows from them, and curves as JSON can hold them."""
        return {
            "rows": [asdict(r) | {"error": r.error, "holds": r.holds} for r in self.rows],
            "curves": [
                asdict(c) | {n: [float(f"{v:.6g}") for v in getattr(c, n)] for n in _ARRAYS}
                for c in self.curves
            ],
        }

    def worst(self) -> tuple[Row, ...]:
        """Return of each statistic the row that comes closest to its bound."""
        found: dict[str, Row] = {}
        for row in self.rows:
            before = found.get(row.name)
            if before is None or not row.error / row.bound <= before.error / before.bound:
                found[row.name] = row
        return tuple(found.values())
