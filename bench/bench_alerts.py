"""Speed of association, summaries and alerts, and pulls of motions, as JSON lines.

``speed`` (default) or ``science``.  Each line: name, stage, value, unit, bound, goal, holds,
population.  Times are processor time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS

from bench.report import reporter
from harness.catalog import Catalog
from harness.ledger import Outcome, Target, measuring
from harness.tasks import association
from harness.tasks.versions import refresh_forced_means
from harness.verify.alerts import check
from pipeline import alerts, diaobject
from pipeline.diaobject.astrometry import barycentric
from pipeline.diaobject.matching import Sky, match
from pipeline.exposure import Exposure, GridPsf, VisitInfo
from pipeline.schema import (
    DIA_FORCED_SOURCE,
    DIA_OBJECT,
    DIA_OBJECT_LAST,
    DIA_SOURCE,
    METRIC,
    SS_OBJECT,
    Table,
    to_numpy,
)
from pipeline.sphere import displaced

T0 = 57071.25
report = reporter("diaobject")


def seconds(function: Callable[[], Any], repeat: int = 3) -> tuple[float, Any]:
    """Least processor time of a few calls, the first one to compile not counted."""
    result = function()
    costs = []
    for _ in range(repeat):
        start = time.process_time()
        result = function()
        costs.append(time.process_time() - start)
    return min(costs), result


def sky(ids: Any, ra: Any, dec: Any, sigma: float) -> Sky:
    return Sky(ids, ra, dec, np.broadcast_to(sigma**2 * np.eye(2), (len(ids), 2, 2)))


def bench_association() -> None:
    rng = np.random.default_rng(1)
    n_objects, n_sources = 500_000, 30_000
    east, north = rng.uniform(-3600, 3600, (2, n_objects))
    ra, dec = displaced(np.full(n_objects, 150.0), np.full(n_objects, -6.0), east, north)
    seen = rng.choice(n_objects, n_sources, replace=False)
    found = displaced(ra[seen], dec[seen], *rng.normal(0, 0.1, (2, n_sources)))
    objects = sky(np.arange(n_objects), ra, dec, 0.05)
    sources = sky(np.arange(n_sources), *found, 0.1)
    config = diaobject.Config()
    one = np.ones(n_sources, np.int64)
    cost, (i, j) = seconds(lambda: match(sources, objects, one, config))
    report("match_sources", cost, "s", 0.5, "5e5 objects, 3e4 sources", goal=0.3)
    wrong = 1.0 - np.mean(seen[i] == j) * len(i) / n_sources
    report("match_errors", wrong, "", 0.002, "3e4 sources", goal=0.001)


def table_of_sources(
    n: int, visits: int, rng: np.random.Generator, first: int = 400_000, reach: float = 500.0
) -> pa.Table:
    """Rows of n objects in several visits, all fields that matter filled."""
    rows = n * visits
    visit = np.repeat(np.arange(visits), n)
    ids = (np.int64(first) + visit) * 100 + 25 << 25 | (np.arange(rows) % n + 1)
    flux = rng.normal(900, 100, rows)
    filled: dict[str, Any] = {
        c.name: rng.normal(0, 1, rows).astype(np.float32)
        for c in DIA_SOURCE.columns if c.dtype == "f32"
    }  # fmt: skip
    filled |= {c.name: np.zeros(rows, bool) for c in DIA_SOURCE.columns if c.dtype == "bool"}
    ra, dec = displaced(np.full(n, 150.0), np.full(n, -6.0), *rng.uniform(-reach, reach, (2, n)))
    filled |= {
        "diaSourceId": ids, "visit": first + visit, "ra": np.tile(ra, visits),
        "dec": np.tile(dec, visits), "psfFlux": flux, "psfFluxErr": np.full(rows, 40.0),
        "apFlux": flux, "apFluxErr": np.full(rows, 60.0), "midpointMjdTai": T0 - visits + visit,
        "diaObjectId": ids[np.arange(rows) % n], "scienceFlux": flux,
        "scienceFluxErr": np.full(rows, 50.0), "raErr": np.full(rows, 3e-5),
        "decErr": np.full(rows, 3e-5), "ra_dec_Cov": np.zeros(rows),
        "x": np.tile(rng.uniform(40, 2000, n), visits),
        "y": np.tile(rng.uniform(40, 4000, n), visits),
        "reliability": np.full(rows, 0.9), "scienceRa": np.full(rows, np.nan),
        "scienceDec": np.full(rows, np.nan),
    }  # fmt: skip
    return DIA_SOURCE.to_arrow(
        filled, detector=25, band="g", psfNdata=100, trailNdata=100, dipoleNdata=100, bboxSize=25,
        timeProcessedMjdTai=T0, reliabilityVersion="1",
    )  # fmt: skip


def bench_summaries() -> None:
    sources = table_of_sources(30_000, 20, np.random.default_rng(2))
    config = diaobject.Config()
    cost, _ = seconds(lambda: diaobject.summarise(sources, None, T0, config), 2)
    report("summarise_objects", cost, "s", 10.0, "3e4 objects of 20 epochs", goal=5.0)
    config = diaobject.Config(period_min_points=1000)
    cost, _ = seconds(lambda: diaobject.summarise(sources, None, T0, config), 2)
    report("summarise_without_periods", cost, "s", 0.6, "the same, no periods", goal=0.6)


def _filled(catalog: Catalog, table: Table, n: int, values: dict[str, str]) -> None:
    """Insert n rows made by SQL from their number ``i``; what is not given is 0 or NULL."""
    zero = {"str": "'g'", "bool": "false", "time": "now()"}
    columns = [c for c in table.columns if not c.nullable or c.name in values]
    names = ", ".join(f'"{c.name}"' for c in columns)
    words = ", ".join(values.get(c.name, zero.get(c.dtype, "0")) for c in columns)
    catalog.fetch(
        f'INSERT INTO "{table.name}" ({names}) SELECT {words} FROM range(1, {n} + 1) t(i)'
    )


def bench_forced_means(numbers: tuple[int, ...] = (10_000, 1_000_000)) -> None:
    """Refresh the forced means of 1000 objects in catalogues of different sizes."""
    costs = []
    for n in numbers:
        with tempfile.TemporaryDirectory() as folder, Catalog(Path(folder) / "c") as catalog:
            catalog.fetch("SET threads = 1")
            _filled(catalog, DIA_OBJECT, n, {"diaObjectId": "i", "nDiaSources": "1"})
            _filled(catalog, DIA_FORCED_SOURCE, 5 * n,
                    {"diaForcedSourceId": "i", "diaObjectId": "(i - 1) // 5 + 1",
                     "visit": "(i - 1) % 5", "band": "'g'", "psfFlux": "i % 7",
                     "psfFluxErr": "1.0", "midpointMjdTai": "59000.0 + (i - 1) % 5"})  # fmt: skip
            catalog.fetch("UPDATE DiaObject SET g_fpFluxNdata = 5, lastDiaSourceMjdTai = 59000")
            mark = f"UPDATE DiaObject SET g_fpFluxNdata = NULL WHERE diaObjectId % {n // 1000} = 0"
            times = []
            for _ in range(3):
                catalog.fetch(mark)
                start = time.process_time()
                refresh_forced_means(catalog)
                times.append(time.process_time() - start)
            costs.append(min(times))
    growth = costs[-1] / costs[0]
    population = f"1000 marked of {numbers[-1]} objects over 1000 of {numbers[0]}"
    report("refresh_forced_means", growth, "", 2.0, population, goal=1.0, stage="forced")


def known(n: int, depth: int, rng: np.random.Generator, first: int = 400_000) -> tuple[Any, ...]:
    """Sources of a visit, their objects, and the sources and forced fluxes of those before."""
    everything = table_of_sources(n, depth, rng, first)
    sources = everything.slice(n * (depth - 1))
    history = everything.slice(0, n * (depth - 1))
    objects = diaobject.summarise(everything, None, T0, diaobject.Config())
    columns = {
        name: history.column(name)
        for name in ("diaObjectId", "ra", "dec", "visit", "detector", "psfFlux", "psfFluxErr",
                     "midpointMjdTai", "scienceFlux", "scienceFluxErr", "band")
    }  # fmt: skip
    columns["diaForcedSourceId"] = history.column("diaSourceId")
    return sources, objects, history, DIA_FORCED_SOURCE.to_arrow(columns, timeProcessedMjdTai=T0)


def bench_visit(n: int, m: int, reach: float, field: float) -> tuple[float, float]:
    """Associate and write a visit that sees m of n objects; processor and elapsed time.

    Parameters
    ----------
    n, m : int
        Objects of one source each, and sources of the visit.
    reach, field : float, arcsec
        Half the side of the square of all objects, and of the one that the visit sees.
    """
    rng, config = np.random.default_rng(4), diaobject.Config()
    before = table_of_sources(n, 1, rng, 300_000, reach)
    ra, dec = to_numpy(before, "ra"), to_numpy(before, "dec")
    inside = np.flatnonzero((abs(dec + 6.0) < field / 3600) & (abs(ra - 150.0) < field / 3600))
    seen = before.take(rng.choice(inside, m, replace=False))
    with tempfile.TemporaryDirectory() as folder, Catalog(Path(folder) / "c") as catalog:
        catalog.fetch("SET threads = 1")
        objects = diaobject.summarise(before, None, T0, config)
        catalog.insert("DiaSource", before)
        catalog.insert("DiaObject", objects)
        catalog.insert("DiaObjectLast", objects.select(DIA_OBJECT_LAST.names))
        del before, objects
        costs = []
        for visit in (400_000, 400_001, 400_002):
            sources = again(seen, visit, rng)
            with measuring() as cost:
                region = association._region(catalog, sources, config)
                now = T0 + visit - 399_999
                result = diaobject.run(sources, *region, None, None, config, processed_mjd_tai=now)
                tables = {
                    "DiaSource": result.sources, "DiaObject": result.objects,
                    "DiaObjectLast": result.objects.select(DIA_OBJECT_LAST.names),
                    "DiaObjectHistory": result.superseded, "SSSource": result.ss_sources,
                    "DiaObject_To_Object_Match": result.matches, "SSObject": SS_OBJECT.empty(),
                    "metric": METRIC.empty(),
                }  # fmt: skip
                outcome = Outcome(Target(visit, -1), tables=tables)
                with catalog.transaction():
                    association._store(catalog, outcome)
            assert result.metrics["nMatched"] > 0.99 * m
            costs.append((cost.cpu_s, cost.wall_s))
    return min(costs)


def again(seen: pa.Table, visit: int, rng: np.random.Generator) -> pa.Table:
    """The same sources in another visit, a tenth of an arcsec off."""
    n = seen.num_rows
    at = displaced(to_numpy(seen, "ra"), to_numpy(seen, "dec"), *rng.normal(0, 0.1, (2, n)))
    ids = np.int64(visit) * 100 + 25 << 25 | np.arange(1, n + 1)
    columns = {name: seen.column(name) for name in DIA_SOURCE.names if name != "diaObjectId"}
    columns |= {"ra": at[0], "dec": at[1], "diaSourceId": ids, "visit": np.full(n, visit),
                "midpointMjdTai": np.full(n, T0 + visit - 400_000)}  # fmt: skip
    return DIA_SOURCE.to_arrow(columns)


def bench_visits() -> None:
    cpu, wall = bench_visit(500_000, 30_000, 3600.0, 3600.0)
    report("associate_and_write", wall, "s", 3.0, "3e4 sources, 5e5 objects", goal=1.0)
    costs = []
    for n in (10_000, 100_000, 1_000_000):
        cpu, _ = bench_visit(n, 1000, 360.0 * (n / 10_000) ** 0.5, 360.0)
        costs.append(cpu)
        report(f"visit_of_1000_among_{n}", cpu, "s", 3.0, "1e4 in its field", goal=1.0)
    report("visit_growth", costs[-1] / costs[0], "", 2.0, "1e6 over 1e4 objects", goal=1.0)


def bench_alerts() -> None:
    rng = np.random.default_rng(3)
    n, shape = 1000, (4096, 2048)
    sources, objects, history, forced = known(n, 21, rng)
    images = [exposure(rng, shape) for _ in range(3)]
    cutting, cutouts = seconds(lambda: alerts.cut_out(sources, *images))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alerts.avro"

        def make() -> Path:
            made = alerts.run(
                sources, objects, history, forced, cutouts, processed_mjd_tai=T0,
            )  # fmt: skip
            return alerts.write(path, made.packets)

        cost, _ = seconds(make)
        size = path.stat().st_size / n / 1000
        start = time.process_time()
        count = sum(1 for _ in alerts.read(path))
        reading = time.process_time() - start
        few = alerts.write(Path(folder) / "few.avro", alerts.run(
            sources.slice(0, 100), objects, history, forced, cutouts,
            processed_mjd_tai=T0).packets)  # fmt: skip
        checking, _ = seconds(lambda: check(few), 2)
    population = f"{count} alerts, 20 sources and 20 forced fluxes of history each"
    report("cut_out", cutting, "s", 3.0, population, goal=1.0, stage="alerts")
    report("make_alerts", cost, "s", 3.0, population, goal=2.0, stage="alerts")
    report("packet_size", size, "kB", 300.0, population, goal=200.0, stage="alerts")
    report("read_alerts", reading, "s", 15.0, population, goal=10.0, stage="alerts")
    report("check_alerts", checking * 10, "s", 60.0, "100 alerts, times ten", goal=20.0,
           stage="alerts")  # fmt: skip


def exposure(rng: np.random.Generator, shape: tuple[int, int]) -> Exposure:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, -6], [1024, 2048]
    wcs.wcs.cd = np.array([[0.0, 0.263], [-0.263, 0.0]]) / 3600
    u = np.arange(41) - 20
    stamp = np.exp(-0.5 * (u[:, None] ** 2 + u**2) / 1.9**2)
    psf = GridPsf((stamp / stamp.sum())[None, None], np.zeros(1), np.zeros(1))
    image = rng.standard_normal(shape, np.float32)
    return Exposure(
        image, np.ones(shape, np.float32), np.zeros(shape, np.uint32),
        VisitInfo(400_020, 25, "g", 86.0, T0), wcs, psf, unit="nJy",
    )  # fmt: skip


def bench_motion() -> None:
    """Pulls of proper motion and parallax on two simulated years of 2,000 stars."""
    rng = np.random.default_rng(20260101)
    n, visits = 2000, 30
    days = np.sort(rng.uniform(0, 730, visits))
    ra, dec = displaced(np.full(n, 155.0), np.full(n, -6.0), *rng.uniform(-900, 900, (2, n)))
    true = {
        "pmRa": rng.normal(0, 50, n),
        "pmDec": rng.normal(0, 50, n),
        "parallax": rng.uniform(0, 30, n),
    }
    error = 0.03
    parts = []
    for k, day in enumerate(days):
        shift = motion(ra, dec, true, day)
        scatter = rng.normal(0, np.hypot(error, 0.01), (2, n))
        at = displaced(ra, dec, *(shift + scatter))
        parts.append(moved(n, k, T0 + day, at, error))
    objects = diaobject.summarise(pa.concat_tables(parts), None, T0, diaobject.Config())
    for name, values in true.items():
        pull = (to_numpy(objects, name) - values) / to_numpy(objects, f"{name}Err")
        off = abs(float(np.std(pull)) - 1.0)
        report(f"{name}_pull_width_off", off, "", 0.1, f"{n} stars, {visits} visits", goal=0.05)


def motion(ra: Any, dec: Any, true: dict[str, Any], day: float) -> Any:
    """Displacement in arcsec since the middle of the campaign."""
    years = (day - 365.0) / 365.25
    x, y, z = barycentric("earth", np.array([T0 + day]))[0]
    a, d = np.radians(ra), np.radians(dec)
    east = x * np.sin(a) - y * np.cos(a)
    north = (x * np.cos(a) + y * np.sin(a)) * np.sin(d) - z * np.cos(d)
    return 1e-3 * np.array(
        [
            true["pmRa"] * years + true["parallax"] * east,
            true["pmDec"] * years + true["parallax"] * north,
        ]
    )


def moved(n: int, k: int, time_tai: float, at: Any, error: float) -> pa.Table:
    errors = dict.fromkeys(("raErr", "decErr", "scienceRaErr", "scienceDecErr"), error / 3600)
    return DIA_SOURCE.to_arrow(
        {"diaSourceId": np.arange(n) + n * k, "diaObjectId": np.arange(n),
         "ra": at[0], "dec": at[1], "scienceRa": at[0], "scienceDec": at[1]},
        visit=k, detector=1, midpointMjdTai=time_tai, x=0.0, y=0.0, ra_dec_Cov=0.0,
        scienceRa_scienceDec_Cov=0.0, psfFlux=500.0, psfFluxErr=20.0, band="g", psfNdata=1,
        trailNdata=0, dipoleNdata=0, bboxSize=21, timeProcessedMjdTai=T0, **errors,
    )  # fmt: skip


def main() -> None:
    if sys.argv[1:] == ["science"]:
        bench_motion()
        return
    bench_association()
    bench_visits()
    bench_summaries()
    bench_forced_means()
    bench_alerts()


if __name__ == "__main__":
    main()
