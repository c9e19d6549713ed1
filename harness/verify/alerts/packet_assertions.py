"""Assertions on the records of a packet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import cos, hypot, isnan, log, radians, sqrt
from typing import Any

from harness.verify.alerts.assertion import Finding, Record, View, assertion, finite

__all__: list[str] = []

_FIELDS = (
    "diaSourceId", "diaSource", "prvDiaSources", "prvDiaForcedSources", "diaObject", "ssSource",
    "cutoutDifference", "cutoutScience", "cutoutTemplate",
)  # fmt: skip
_YEAR = 366.0
_FLOORS = (0.0, 0.01)  # arcsec per visit added to quoted errors
_FLOAT32 = 2e-6
_IMPLIES = {
    "psfFlux_flag": ("psfFlux_flag_edge", "psfFlux_flag_noGoodPixels"),
    "apFlux_flag": ("apFlux_flag_apertureTruncated",),
    "forced_PsfFlux_flag": ("forced_PsfFlux_flag_edge", "forced_PsfFlux_flag_noGoodPixels"),
    "shape_flag": ("shape_flag_no_pixels", "shape_flag_not_contained"),
}


def _one(holds: bool, detail: str = "", severity: float = 1.0) -> Iterator[Finding]:
    yield Finding(bool(holds), severity, detail)


@assertion("fields-present")
def _fields(view: View) -> Iterator[Finding]:
    missing = [name for name in _FIELDS if name not in view.packet]
    yield from _one(not missing, f"missing {missing}", len(missing))


@assertion("alert-id-unique")
def _unique(view: View) -> Iterator[Finding]:
    yield from _one(view.number not in view.seen, "occurs twice in the file")


@assertion("alert-id-is-source")
def _id_is_source(view: View) -> Iterator[Finding]:
    """Require the number of the source, also as the number of the alert in our own part."""
    own = (view.packet.get("nightjar") or {}).get("alertId", view.number)
    numbers = {view.number, view.source.get("diaSourceId"), own}
    yield from _one(len(numbers) == 1, f"names another source: {sorted(map(str, numbers))}")


@assertion("identifiers-present")
def _identifiers(view: View) -> Iterator[Finding]:
    """Require an alert id and the id of the database (DMS-REQ-0274)."""
    more = view.packet.get("nightjar") or view.packet
    missing = [name for name in ("alertId", "databaseId") if not more.get(name)]
    yield from _one(not missing, f"missing {missing}")


@assertion("one-identity")
def _identity(view: View) -> Iterator[Finding]:
    ids = [view.source.get(name) or None for name in ("diaObjectId", "ssObjectId")]
    yield from _one(ids.count(None) == 1, f"diaObjectId, ssObjectId = {ids}")


@assertion("counterpart-present")
def _counterpart(view: View) -> Iterator[Finding]:
    """Require the object or solar-system record that the source names."""
    if view.source.get("diaObjectId"):
        same = view.object.get("diaObjectId") == view.source["diaObjectId"]
        yield from _one(same, f"diaObject is {view.object.get('diaObjectId')}")
    if view.source.get("ssObjectId"):
        body = view.packet.get("ssSource") or {}
        same = body.get("ssObjectId") == view.source["ssObjectId"]
        yield from _one(same, f"ssSource is {body.get('ssObjectId')}")
        orbit = view.packet.get("mpc_orbits")
        if orbit:
            same = orbit.get("designation") == body.get("designation")
            yield from _one(same, f"mpc_orbits is that of {orbit.get('designation')}")


@assertion("history-same-object")
def _same_object(view: View) -> Iterator[Finding]:
    key = "ssObjectId" if view.source.get("ssObjectId") else "diaObjectId"
    for row in view.history:
        yield from _one(row.get(key) == view.source.get(key), f"{key} {row.get(key)} in history")


@assertion("history-ordered")
def _ordered(view: View) -> Iterator[Finding]:
    for name in ("history", "forced"):
        times = [row["midpointMjdTai"] for row in getattr(view, name)]
        if len(times) > 1:
            late = max(a - b for a, b in pairwise(times))
            yield from _one(late <= 0, f"{name} steps back by {late:.5f} d", late)


@assertion("history-no-look-ahead")
def _look_ahead(view: View) -> Iterator[Finding]:
    """Refuse what was measured after the exposure, and the source itself."""
    now = view.source["midpointMjdTai"]
    for row in [*view.history, *view.forced]:
        excess = row["midpointMjdTai"] - now
        itself = row.get("diaSourceId") == view.number
        yield from _one(excess <= 0 and not itself, f"{excess:.5f} d later", excess)


@assertion("limits-unmeasured")
def _limits(view: View) -> Iterator[Finding]:
    """Refuse upper limits of visits that were measured, that are to come or that have no depth."""
    more = view.packet.get("nightjar")
    limits = more.get("noiseLimits") if isinstance(more, Mapping) else None
    measured = {(r.get("visit"), r.get("detector")) for r in [*view.history, *view.forced]}
    for row in limits or ():
        early = row["midpointMjdTai"] < view.source["midpointMjdTai"]
        unmeasured = (row["visit"], row["detector"]) not in measured
        holds = early and unmeasured and finite(row, "limit") and row["limit"] > 0
        yield from _one(holds, f"limit {row['limit']} of visit {row['visit']}")


@assertion("history-within-year")
def _window(view: View) -> Iterator[Finding]:
    now = view.source["midpointMjdTai"]
    for row in [*view.history, *view.forced]:
        age = now - row["midpointMjdTai"]
        yield from _one(age <= _YEAR, f"{age:.1f} d old", age)


@assertion("source-ids-unique")
def _source_ids(view: View) -> Iterator[Finding]:
    ids = [row.get("diaSourceId") for row in view.sources]
    yield from _one(len(set(ids)) == len(ids), f"{len(ids) - len(set(ids))} repeated")


@assertion("one-source-per-visit")
def _per_visit(view: View) -> Iterator[Finding]:
    """Count sources of one detector: where detectors overlap each has one of its own."""
    counts = Counter((row.get("visit"), row.get("detector")) for row in view.sources)
    for (visit, _), n in counts.items():
        yield from _one(n == 1, f"{n} sources of visit {visit}", n)


@assertion("fluxes-finite")
def _fluxes(view: View) -> Iterator[Finding]:
    """Require PSF and aperture fluxes with errors, which some consumers cannot do without."""
    for row in view.sources:
        bad = [n for n in ("psfFlux", "psfFluxErr", "apFlux", "apFluxErr") if not finite(row, n)]
        yield from _one(not bad, f"source {row.get('diaSourceId')}: {bad}", len(bad))


@assertion("null-not-nan")
def _nan(view: View) -> Iterator[Finding]:
    records = [*view.sources, *view.forced, view.object]
    for record in filter(None, records):
        names = [k for k, v in record.items() if isinstance(v, float) and isnan(v)]
        yield from _one(not names, f"NaN in {names[:5]}", len(names))


@assertion("snr-above-threshold")
def _snr(view: View) -> Iterator[Finding]:
    if finite(view.source, "snr"):
        snr = view.source["snr"]
        yield from _one(snr >= 5.0, f"snr {snr:.2f}", -snr)


@assertion("sign-consistent")
def _sign(view: View) -> Iterator[Finding]:
    """Compare isNegative with a significant PSF flux of anything that is not a dipole."""
    for row in view.sources:
        if row.get("isDipole") or not finite(row, "psfFlux", "psfFluxErr"):
            continue
        if row.get("isNegative") is not None and abs(row["psfFlux"]) > 5 * row["psfFluxErr"]:
            same = row["isNegative"] == (row["psfFlux"] < 0)
            yield from _one(same, f"psfFlux {row['psfFlux']:.4g}, isNegative {row['isNegative']}")


@assertion("reliability-in-range")
def _reliability(view: View) -> Iterator[Finding]:
    for row in view.sources:
        if row.get("reliability") is not None:
            yield from _one(0 <= row["reliability"] <= 1, f"reliability {row['reliability']}")


@assertion("not-synthetic")
def _synthetic(view: View) -> Iterator[Finding]:
    flag = view.source.get("pixelFlags_injected")
    if flag is not None:
        yield from _one(not flag, "announces an injected source")


@assertion("flags-imply-general")
def _implied(view: View) -> Iterator[Finding]:
    for general, particular in _IMPLIES.items():
        raised = [name for name in particular if view.source.get(name)]
        if raised and general in view.source:
            yield from _one(bool(view.source[general]), f"{raised[0]} without {general}")


@assertion("processed-after-exposure")
def _processed(view: View) -> Iterator[Finding]:
    if finite(view.source, "timeProcessedMjdTai", "midpointMjdTai"):
        delay = view.source["timeProcessedMjdTai"] - view.source["midpointMjdTai"]
        yield from _one(delay > 0, f"{delay:.5f} d", -delay)


@assertion("trail-errors-plausible")
def _trail_errors(view: View) -> Iterator[Finding]:
    """Compare errors: a trail has more freedom than a point, so its flux is known no better."""
    for row in view.sources:
        comparable = (row.get("psfNdata") or 0) * 2 >= (row.get("trailNdata") or 0)
        if comparable and finite(row, "trailFluxErr", "psfFluxErr") and row["psfFluxErr"] > 0:
            ratio = row["trailFluxErr"] / row["psfFluxErr"]
            yield from _one(
                ratio > 0.5, f"trailFluxErr / psfFluxErr = {ratio:.3f}", 1 / max(ratio, 1e-9)
            )


@assertion("trail-complete")
def _trail_complete(view: View) -> Iterator[Finding]:
    """Require χ² where there is a trail flux, and the errors of length and angle of any length.

    A trail of length zero is a boundary of the fit: it points nowhere and has no such errors.
    """
    for row in view.sources:
        if finite(row, "trailFlux", "trailLength") and not row.get("trail_flag"):
            needed = ["trailChi2"]
            needed += ["trailLengthErr", "trailAngleErr"] if row["trailLength"] > 0 else []
            bad = [n for n in needed if not finite(row, n)]
            yield from _one(not bad, f"no {', '.join(bad)}", len(bad))


@assertion("dipole-lobes-free")
def _dipole(view: View) -> Iterator[Finding]:
    """Refuse lobes of exactly the same flux, which no free fit finds."""
    for row in view.sources:
        if finite(row, "dipoleFluxDiff"):
            yield from _one(row["dipoleFluxDiff"] != 0, "dipoleFluxDiff is exactly 0")


@assertion("likelihood-filled")
def _likelihood(view: View) -> Iterator[Finding]:
    if "psfLnL" in view.source and not view.source.get("psfFlux_flag"):
        yield from _one(finite(view.source, "psfLnL"), "no psfLnL")


@assertion("count-of-sources")
def _count(view: View) -> Iterator[Finding]:
    """Compare nDiaSources with the packet; more is right when the object is older than a year."""
    if finite(view.object, "nDiaSources"):
        n, here = view.object["nDiaSources"], len(view.sources)
        first = view.object.get("firstDiaSourceMjdTai")
        old = first is not None and view.source["midpointMjdTai"] - first > _YEAR - 2.0
        yield from _one(n == here or (old and n > here), f"nDiaSources {n}, in the packet {here}")


@assertion("first-and-last-epoch")
def _epochs(view: View) -> Iterator[Finding]:
    if not view.object:
        return
    times = [row["midpointMjdTai"] for row in view.sources]
    expected = {"lastDiaSourceMjdTai": max(times)}
    if view.complete:
        expected["firstDiaSourceMjdTai"] = min(times)
    for name, time in expected.items():
        value = view.object.get(name)
        holds = value is not None and abs(value - time) < 1e-8
        yield from _one(holds, f"{name} {value} instead of {time}")


@assertion("position-is-mean")
def _mean_position(view: View) -> Iterator[Finding]:
    """Require the mean of the sources within a milliarcsecond, whatever the usual weights."""
    rows = [r for r in view.sources if finite(r, "ra", "dec")]
    if not view.complete or len(rows) != len(view.sources):
        return
    means = [_plain_mean(view.object, rows)]
    if all(finite(r, "raErr", "decErr") and r["raErr"] > 0 and r["decErr"] > 0 for r in rows):
        means += [_weighted_mean(view.object, rows, floor)[0] for floor in _FLOORS]
    best = min(hypot(*mean) for mean in means)
    yield from _one(best < 1e-3, f"{best * 1e3:.2f} mas from the mean of {len(rows)}", best)


def _offset_of(place: Record, row: Record) -> tuple[float, float]:
    """Displacement of a source from its object to the east and to the north, in arcsec."""
    turn = (row["ra"] - place["ra"] + 180.0) % 360.0 - 180.0
    return turn * cos(radians(place["dec"])) * 3600, (row["dec"] - place["dec"]) * 3600


def _plain_mean(place: Record, rows: list[Record]) -> tuple[float, float]:
    east, north = zip(*(_offset_of(place, r) for r in rows), strict=True)
    return sum(east) / len(rows), sum(north) / len(rows)


def _weighted_mean(
    place: Record, rows: list[Record], floor: float
) -> tuple[tuple[float, float], float]:
    """Mean offset (arcsec) with the sources' covariances, and its error to the east."""
    aa = ab = bb = u = v = 0.0
    for row in rows:
        east, north = _offset_of(place, row)
        a, b = (row["raErr"] * 3600) ** 2 + floor**2, (row["decErr"] * 3600) ** 2 + floor**2
        c = (row.get("ra_dec_Cov") or 0.0) * 3600**2
        determinant = a * b - c * c
        aa, ab, bb = aa + b / determinant, ab - c / determinant, bb + a / determinant
        u += (b * east - c * north) / determinant
        v += (a * north - c * east) / determinant
    determinant = aa * bb - ab * ab
    mean = (bb * u - ab * v) / determinant, (aa * v - ab * u) / determinant
    return mean, sqrt(bb / determinant)


@assertion("position-error-of-mean")
def _position_error(view: View) -> Iterator[Finding]:
    """Require an error that shrinks with the number of sources, not that of the first one."""
    rows = [r for r in view.sources if finite(r, "ra", "dec", "raErr", "decErr")]
    rows = [r for r in rows if r["raErr"] > 0 and r["decErr"] > 0]
    if not view.complete or len(rows) < 3 or not finite(view.object, "raErr"):
        return
    ratios = []
    for floor in _FLOORS:
        mean, formal = _weighted_mean(view.object, rows, floor)
        spread = [_spread(view.object, rows, mean, floor, axis) for axis in (0, 1)]
        honest = formal * sqrt(max(1.0, sum(spread) / 2))
        ratios.append(view.object["raErr"] * 3600 / honest)
    ratio = min(ratios, key=lambda r: abs(log(r)))
    detail = f"raErr is {ratio:.2f} times the error of the mean of {len(rows)}"
    yield from _one(1 / 2 < ratio < 2, detail, abs(log(ratio)))


def _spread(
    place: Record, rows: list[Record], mean: tuple[float, float], floor: float, axis: int
) -> float:
    """Reduced χ² of the positions round their mean, east (0) or north (1)."""
    error = ("raErr", "decErr")[axis]
    chi2 = sum(
        (_offset_of(place, r)[axis] - mean[axis]) ** 2 / ((r[error] * 3600) ** 2 + floor**2)
        for r in rows
    )
    return float(chi2 / (len(rows) - 1))


@assertion("statistics-recomputed")
def _statistics(view: View) -> Iterator[Finding]:
    """Recompute the statistics of the announced band from the sources in the packet."""
    band = view.source.get("band")
    if view.complete and band in view.bands:
        yield from _compare(view.object, band, view.bands[band])


@assertion("statistics-all-bands")
def _other_bands(view: View) -> Iterator[Finding]:
    """Recompute the statistics of the other bands."""
    if view.complete:
        for band, rows in view.bands.items():
            if band != view.source.get("band"):
                yield from _compare(view.object, band, rows)


def _compare(place: Record, band: str, rows: list[Record]) -> Iterator[Finding]:
    for name, expected in _light_curve(rows).items():
        column = f"{band}_psfFlux{name}"
        if column not in place:
            continue
        value = place[column]
        scale = max(abs(expected), max(abs(r["psfFlux"]) for r in rows) * 1e-3)
        off = abs(value - expected) / scale if value is not None else float("inf")
        slack = 1e-3 if name == "MaxSlope" else 20 * _FLOAT32
        yield Finding(off <= slack, off, f"{column} {value} instead of {expected:.6g}")


def _light_curve(rows: list[Record]) -> dict[str, Any]:
    flux = [r["psfFlux"] for r in rows]
    weight = [r["psfFluxErr"] ** -2 for r in rows]
    expected: dict[str, Any] = {
        "Mean": sum(f * w for f, w in zip(flux, weight, strict=True)) / sum(weight),
        "MeanErr": sum(weight) ** -0.5,
        "Min": min(flux),
        "Max": max(flux),
        "Ndata": len(flux),
    }
    if len(flux) > 1:
        middle = sum(flux) / len(flux)
        expected["Sigma"] = sqrt(sum((f - middle) ** 2 for f in flux) / (len(flux) - 1))
        time = [r["midpointMjdTai"] for r in rows]
        steps = zip(time[1:], time[:-1], flux[1:], flux[:-1], strict=True)
        slopes = [(f - g) / (t - s) for t, s, f, g in steps if t > s]
        if slopes:
            expected["MaxSlope"] = max(slopes)
    return expected


@assertion("forced-agrees-with-detected")
def _forced_agrees(view: View) -> Iterator[Finding]:
    """Bound the median pull of forced against detected flux in five or more common visits.

    That of point sources: the flux of a dipole belongs to the place of one lobe, and that of a
    flagged centroid to a peak, not to the object.
    """
    detected = {
        r["visit"]: r
        for r in view.history
        if finite(r, "psfFlux", "psfFluxErr") and not (r.get("isDipole") or r.get("centroid_flag"))
    }
    pulls = sorted(
        (f["psfFlux"] - detected[f["visit"]]["psfFlux"]) / detected[f["visit"]]["psfFluxErr"]
        for f in view.forced
        if f.get("visit") in detected and finite(f, "psfFlux")
    )
    if len(pulls) >= 5:
        median = pulls[len(pulls) // 2]
        yield from _one(abs(median) < 1.5, f"median pull {median:.2f} of {len(pulls)}", abs(median))


@assertion("solar-system-plausible")
def _solar_system(view: View) -> Iterator[Finding]:
    """Require distances in AU, and a magnitude and a speed that are not zero."""
    body = view.packet.get("ssSource") or {}
    ranges = {
        "topoRange": (1e-3, 200.0), "helioRange": (1e-2, 200.0), "ephVmag": (1.0, 40.0),
        "ephRate": (1e-6, 100.0),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        if finite(body, name):
            yield from _one(low <= body[name] <= high, f"{name} = {body[name]:.4g}")


@assertion("solar-system-speeds")
def _speeds(view: View) -> Iterator[Finding]:
    """Require that the modulus of a velocity takes all three of its components."""
    body = view.packet.get("ssSource") or {}
    for prefix in ("helio", "topo"):
        if finite(body, *(f"{prefix}_v{axis}" for axis in ("x", "y", "z", "tot"))):
            true = sqrt(sum(body[f"{prefix}_v{axis}"] ** 2 for axis in "xyz"))
            off = abs(body[f"{prefix}_vtot"] - true) / max(true, 1e-12)
            yield from _one(off < 1e-3, f"{prefix}_vtot off by {off:.1%}", off)


@assertion("solar-system-offset")
def _offset(view: View) -> Iterator[Finding]:
    """Compare with the ephemeris: a clock that is 37 s wrong shows here."""
    body = view.packet.get("ssSource") or {}
    if finite(body, "ephOffset"):
        yield from _one(
            body["ephOffset"] < 2.0, f'{body["ephOffset"]:.2f}" away', body["ephOffset"]
        )
