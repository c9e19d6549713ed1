"""Our own code beside the library that could do the same, as JSON lines.

Each value is our time over theirs (processor time, best of a few calls; below 1 ours is faster);
beside it stand both, in ms, and the largest difference of the results.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import fastavro
import numpy as np
from astropy.io import fits
from astropy.stats import mad_std as astropy_mad_std
from astropy.timeseries import LombScargle

from bench.report import reporter
from pipeline.alerts.avro import encode
from pipeline.diaobject.config import Config
from pipeline.diaobject.groups import Groups
from pipeline.diaobject.period import periods
from pipeline.io.hdus import cards, compressed_hdu, primary_hdu, read_pixels
from pipeline.schema import DIA_SOURCE
from pipeline.statistics import mad_std

_SHAPE = (4096, 2048)
report = reporter("libraries")


def milliseconds(function: Callable[[], Any], repeat: int = 5) -> float:
    """Least processor time of a few calls; a first one is not counted."""
    function()
    costs = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        costs.append(time.process_time() - start)
    return 1e3 * min(costs)


def beside(
    name: str, library: str, ours: float, theirs: float, off: float, population: str
) -> None:
    """Print a comparison."""
    numbers = {k: float(f"{v:.3g}") for k, v in (("ours", ours), ("theirs", theirs), ("off", off))}
    report(f"{name}, over {library}", ours / theirs, "ratio", None, population, **numbers)


def bench_periods() -> None:
    rng = np.random.default_rng(1)
    config = Config()
    for n in (30, 100, 300):
        time_ = np.sort(rng.uniform(0.0, 365.0, n))
        error = 50.0 * rng.uniform(0.5, 2.0, n)
        flux = 100.0 * np.sin(2 * np.pi * time_ / 0.7) + error * rng.normal(size=n)
        groups = Groups.of(np.zeros(n, np.int64))
        step = 1.0 / (config.period_oversampling * np.ptp(time_))
        first = int(config.period_oversampling)
        grid = step * np.arange(first, int(config.period_max_frequency / step) + 1)
        curve = LombScargle(time_, flux, error)
        found = periods(groups, time_, flux, error, config)["periodPower"][0]
        ours = milliseconds(lambda g=groups, d=(time_, flux, error): periods(g, *d, config))
        for method in ("fast", "cython"):
            options = {"method": method, "assume_regular_frequency": True}
            theirs = milliseconds(lambda c=curve, g=grid, o=options: c.power(g, **o))
            off = abs(float(curve.power(grid, **options).max()) - found)
            beside(
                "period", f"astropy {method}", ours, theirs, off,
                f"{n} points in a year, {len(grid)} frequencies",
            )  # fmt: skip


def bench_rows() -> None:
    rng = np.random.default_rng(2)
    n = 2000
    columns: dict[str, Any] = {}
    for c in DIA_SOURCE.columns:
        if c.dtype == "str":
            columns[c.name] = ["g"] * n
        elif c.dtype == "bool":
            columns[c.name] = rng.random(n) < 0.5
        elif c.dtype[0] == "f":
            columns[c.name] = rng.normal(0, 1e3, n)
        elif c.dtype == "time":
            columns[c.name] = [None] * n if c.nullable else [0] * n
        else:
            columns[c.name] = rng.integers(0, 30_000, n)
    table = DIA_SOURCE.to_arrow(columns)
    kinds = {"i64": "long", "i32": "int", "i16": "int", "f64": "double", "f32": "float",
             "bool": "boolean", "str": "string", "time": "long"}  # fmt: skip
    fields = [
        {"name": c.name, "type": ["null", kinds[c.dtype]] if c.nullable else kinds[c.dtype]}
        for c in DIA_SOURCE.columns
    ]
    schema = fastavro.parse_schema({"type": "record", "name": "row", "fields": fields})

    def theirs() -> bytes:
        stream = BytesIO()
        for row in table.to_pylist():
            fastavro.schemaless_writer(stream, schema, row)
        return stream.getvalue()

    same = encode(table, DIA_SOURCE.columns).data == theirs()
    beside(
        "rows as Avro", "fastavro", milliseconds(lambda: encode(table, DIA_SOURCE.columns)),
        milliseconds(theirs), float(not same), f"{n} rows of {len(fields)} columns",
    )  # fmt: skip


def bench_files() -> None:
    rng = np.random.default_rng(3)
    step = 0.25
    pixels = (np.rint(rng.normal(0.0, 20.0, _SHAPE) / step) * step).astype(np.float32)
    integers = np.rint(pixels / step).astype(np.int32)
    population = f"{_SHAPE[0]} x {_SHAPE[1]} pixels of noise, 80 steps wide"

    def ours() -> bytes:
        return primary_hdu(cards([])) + compressed_hdu("IMAGE", pixels, None, step)

    def theirs(checksum: bool = True) -> bytes:
        stream = BytesIO()
        hdu = fits.CompImageHDU(
            np.rint(pixels / np.float32(step)).astype(np.int32),
            compression_type="RICE_1",
            name="IMAGE",
        )
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream, checksum=checksum)
        return stream.getvalue()

    def read_theirs(data: bytes) -> Any:
        with fits.open(BytesIO(data)) as hdus:
            return hdus[1].data

    mine, other = ours(), theirs()
    off = np.abs(read_theirs(mine) - pixels).max()
    off += np.abs(read_theirs(other) - integers).max()
    both = milliseconds(theirs, 3)
    beside("write RICE and checksum", "astropy", milliseconds(ours, 3), both, off, population)
    with fits.open(BytesIO(mine), do_not_scale_image_data=True) as hdus:
        off = np.abs(read_pixels(hdus[1]) - pixels).max()
        reading = milliseconds(lambda: read_pixels(hdus[1]), 3)
    beside("read RICE", "astropy", reading, milliseconds(lambda: read_theirs(mine), 3), off,
           population)  # fmt: skip
    beside("bytes of the file / 10⁶", "astropy", len(mine) / 1e6, len(other) / 1e6, 0.0, population)


def bench_widths() -> None:
    rng = np.random.default_rng(4)
    for shape in ((200,), (512, 512)):
        values = rng.normal(0.0, 3.0, shape).astype(np.float32)
        beside(
            "mad_std", "astropy", milliseconds(lambda v=values: mad_std(v), 50),
            milliseconds(lambda v=values: astropy_mad_std(v), 50),
            abs(mad_std(values) / float(astropy_mad_std(values)) - 1), f"float32 {shape}",
        )  # fmt: skip


def main() -> None:
    """Print every comparison."""
    bench_periods()
    bench_rows()
    bench_files()
    bench_widths()


if __name__ == "__main__":
    main()
