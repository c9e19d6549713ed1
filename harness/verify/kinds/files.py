"""Products that must exist, one per unit of the pinned list: present, non-empty, undamaged."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow.parquet as pq
from astropy.io import fits

from harness.verify.kind import Kind, Product
from harness.verify.measurement import Evidence, Measurement

if TYPE_CHECKING:
    from harness.verify.bounds import Bound
    from harness.verify.context import Context, Unit

__all__ = ["Files"]


class Files(Kind):
    """Products of the expected units that are missing, unexplained or damaged.

    ``count`` says what is counted: ``missing``, ``unexplained`` (missing without a cause code in
    the ledger), ``damaged`` (present but empty, truncated or with a wrong CHECKSUM), ``altered``
    (not of the SHA-256 that the catalogue records) or ``lost`` (the missing fraction).
    """

    name: ClassVar[str] = "files"

    product: Product
    count: Literal["missing", "unexplained", "damaged", "lost", "altered"] = "missing"

    @property
    def unit(self) -> str:
        """``files``, and none for a fraction."""
        return "" if self.count == "lost" else "files"

    def measure(self, context: Context, bound: Bound) -> Measurement:
        """Look for every expected file."""
        units = context.expected(self.product)
        places = {u: context.product(self.product, u) for u in units}
        missing = [u for u, p in places.items() if not p.is_file()]
        if self.count in ("damaged", "altered"):
            present = {u: p for u, p in places.items() if p.is_file()}
            count = self._damaged if self.count == "damaged" else self._altered
            return count(context, present)
        causes = [_cause(context, u) for u in missing]
        table = {
            "columns": ["visit", "detector", "cause", "message"],
            "rows": [[u.visit, u.detector, *c] for u, c in zip(missing, causes, strict=True)],
        }
        failing = [
            {**u.key, "cause": c[0] or "unknown"}
            for u, c in zip(missing, causes, strict=True)
            if self.count != "unexplained" or not c[0]
        ]
        value = len(missing) / len(units) if self.count == "lost" and units else len(failing)
        groups = Counter(c[0] or "unknown" for c in causes)
        note = f"{len(units) - len(missing)} of {len(units)} present"
        note += "".join(f", {n} lost to {cause}" for cause, n in sorted(groups.items()))
        evidence = (Evidence(f"missing: {self.product}", "table", table),) if missing else ()
        return Measurement(
            float(value), len(units), failing=tuple(failing), evidence=evidence, note=note
        )

    def _altered(self, context: Context, places: dict[Unit, Path]) -> Measurement:
        table = {"visit_image": "visit_image", "difference": "difference_image"}[self.product]
        rows = context.fetch(f"select visit, detector, sha256 from {table}")
        recorded = {(int(v), int(d)): str(h) for v, d, h in rows}
        failing = [
            {**u.key, "recorded": recorded.get((u.visit, u.detector), "nothing")[:12]}
            for u, p in places.items()
            if context.sha256(p) != recorded.get((u.visit, u.detector))
        ]
        return Measurement(len(failing), len(places), failing=tuple(failing))

    def _damaged(self, context: Context, places: dict[Unit, Path]) -> Measurement:
        known: dict[object, str] = context.memory.setdefault("damage", {})
        faults = {}
        for unit, path in places.items():
            stat = path.stat()
            key = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if key not in known:
                known[key] = damage(path)
            if known[key]:
                faults[unit] = known[key]
        failing: list[dict[str, Any]] = [{**u.key, "fault": f} for u, f in faults.items()]
        return Measurement(len(failing), len(places), failing=tuple(failing))


def _cause(context: Context, unit: Unit) -> tuple[str, str]:
    row = context.causes.get((unit.visit, unit.detector), {})
    return str(row.get("cause") or ""), str(row.get("message") or "")


def damage(path: Path) -> str:
    """Say what is wrong with a product file, nothing when all is well.

    Parameters
    ----------
    path : path-like
        FITS (CHECKSUM and DATASUM of every HDU are verified), Parquet or Avro.

    Returns
    -------
    str
        One phrase, empty for a sound file.
    """
    if path.stat().st_size == 0:
        return "empty file"
    try:
        if path.suffix == ".parquet":
            return "" if pq.read_table(path).num_rows else "no rows"
        if path.suffix in (".fits", ".fz"):
            return _fits_damage(path)
    except Exception as err:  # whatever a reader says about it is the finding
        return f"{type(err).__name__}: {' '.join(str(err).split())}"
    return ""


def _fits_damage(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Our own stream: astropy leaves its file open when a warning stops it.
        with (
            path.open("rb") as stream,
            fits.open(stream, checksum=True, memmap=False, disable_image_compression=True) as hdus,
        ):
            if len(hdus) < 2:
                return "no HDU with data"
            promised = hdus[0].header.get("NEXTEND", len(hdus) - 1)
            if len(hdus) - 1 != promised:
                return f"{len(hdus) - 1} extensions instead of {promised}"
            for hdu in hdus:
                if "CHECKSUM" not in hdu.header or "DATASUM" not in hdu.header:
                    return f"HDU {hdu.name!r} has no CHECKSUM"
    return ""
