"""Alerts of one visit and detector."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.alerts.avro import (
    CUTOUTS,
    NOISE_LIMIT,
    RECORDS,
    SCHEMA_VERSION,
    Rows,
    encode,
    long,
    optional,
    text,
)
from pipeline.alerts.config import Config
from pipeline.errors import InputError
from pipeline.schema import (
    ALERT,
    DIA_OBJECT_TO_OBJECT_MATCH,
    MPC_ORBITS,
    SS_SOURCE,
    to_numpy,
)

__all__ = ["Packet", "Result", "Surroundings", "run"]

_LOGGER = logging.getLogger(__name__)

_Integers = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Packet:
    """One alert.

    Attributes
    ----------
    diaSourceId : int
        Its source and its number.
    payload : bytes
        The packet in Avro's binary encoding, without schema.
    """

    diaSourceId: int  # noqa: N815
    payload: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """Alerts of one visit and detector.

    Attributes
    ----------
    packets : list of Packet
        Ordered by source.
    ledger : pyarrow.Table
        `ALERT`: one row for every source above threshold, announced or not, and why not.
    """

    packets: list[Packet]
    ledger: pa.Table


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What may stand in a packet beside the source, its object and its history.

    Attributes
    ----------
    ss_sources, ss_history : pyarrow.Table, optional
        `SS_SOURCE` of this visit and of earlier ones.
    orbits : pyarrow.Table, optional
        `MPC_ORBITS`; those of the bodies in `ss_sources` are used.
    matches : pyarrow.Table, optional
        `DIA_OBJECT_TO_OBJECT_MATCH`.
    limits : pyarrow.Table, optional
        `pipeline.alerts.NOISE_LIMIT`: the differences that show the place of each object.  A
        packet lists those within its window that have neither source nor forced source in it.
    observation_reason, target_name : str, optional
        From the scheduler.
    database : str
        Name of the catalogue the alerts come from.
    software, run : str, optional
        Version and run that made them.
    """

    ss_sources: pa.Table | None = None
    ss_history: pa.Table | None = None
    orbits: pa.Table | None = None
    matches: pa.Table | None = None
    limits: pa.Table | None = None
    observation_reason: str | None = None
    target_name: str | None = None
    database: str = "nightjar"
    software: str | None = None
    run: str | None = None


def run(
    sources: pa.Table,
    objects: pa.Table,
    history: pa.Table,
    forced: pa.Table,
    cutouts: pa.Table,
    config: Config = Config(),  # noqa: B008
    *,
    surroundings: Surroundings = Surroundings(),
    processed_mjd_tai: float,
) -> Result:
    """Make the alerts of one visit and detector.

    A source is announced when it is above threshold, belongs to an object or a solar-system
    body, is as reliable as the configuration asks, and has finite PSF and aperture fluxes.

    Parameters
    ----------
    sources : pyarrow.Table
        `DIA_SOURCE` rows of one visit and detector, associated.
    objects : pyarrow.Table
        `DIA_OBJECT`: the current state of their objects.
    history, forced : pyarrow.Table
        `DIA_SOURCE` and `DIA_FORCED_SOURCE` of these objects and bodies.  Rows of this detector
        in this visit, later ones and those older than `Config.history` are left out; those of
        detectors that overlap with it stay.
    cutouts : pyarrow.Table
        What `cut_out` makes of these sources.
    config : Config
        Configuration.
    surroundings : Surroundings
        Neighbours, ephemerides, names.
    processed_mjd_tai : float, d
        Time stamp for the ledger.

    Returns
    -------
    Result
        Packets and ledger.

    Raises
    ------
    InputError
        If a source that is to be announced has no cut-outs.
    """
    if not sources.num_rows:
        return Result([], ALERT.empty())
    here = sources.slice(0, 1).to_pylist()[0]
    sources = sources.filter(pa.array(~to_numpy(sources, "isSubThreshold")))
    sources = sources.sort_by("diaSourceId")
    reasons = _reasons(sources, config)
    chosen = sources.filter(pa.array(reasons == ""))
    place, epoch = (here["visit"], here["detector"]), here["midpointMjdTai"]
    history, forced = _elsewhere(history, place), _elsewhere(forced, place)
    window = (epoch - config.history, epoch)
    encoded = _Encoded(chosen, objects, history, forced, surroundings, window)
    stamps = _stamps(to_numpy(chosen, "diaSourceId"), cutouts)
    packets = [
        Packet(number, _payload(k, number, encoded, stamps, surroundings))
        for k, number in enumerate(to_numpy(chosen, "diaSourceId").tolist())
    ]
    withheld = Counter(reason for reason in reasons.tolist() if reason)
    counts = "".join(f", {n} withheld: {reason}" for reason, n in sorted(withheld.items()))
    _LOGGER.info("%d alerts%s", len(packets), counts)
    return Result(packets, _ledger(sources, reasons, encoded, packets, processed_mjd_tai))


def _elsewhere(rows: pa.Table, place: tuple[int, int]) -> pa.Table:
    """Rows of other visits and detectors."""
    visit, detector = to_numpy(rows, "visit"), to_numpy(rows, "detector")
    return rows.filter(pa.array((visit != place[0]) | (detector != place[1])))


def _reasons(sources: pa.Table, config: Config) -> npt.NDArray[np.str_]:
    """Why a source is not announced; empty if it is.  The first reason counts."""
    fluxes = [to_numpy(sources, n) for n in ("psfFlux", "psfFluxErr", "apFlux", "apFluxErr")]
    unassociated = (to_numpy(sources, "diaObjectId") < 0) & (to_numpy(sources, "ssObjectId") < 0)
    injected = to_numpy(sources, "pixelFlags_injected") & (not config.injected)
    rules = {
        "deblend parent": to_numpy(sources, "isDeblendParent"),
        "not associated": unassociated,
        "flux not finite": ~np.all(np.isfinite(fluxes), axis=0),
        "reliability below the cut": to_numpy(sources, "reliability") < config.reliability_min,
        "synthetic": injected,
    }
    reasons = np.full(sources.num_rows, "", dtype="U32")
    for reason, applies in reversed(rules.items()):
        reasons[np.asarray(applies, bool)] = reason
    return reasons


class _Timeline:
    """Encoded rows that belong to ids, ordered by id and time."""

    def __init__(
        self, table: pa.Table, key: str, time: str, order: str, window: tuple[float, float]
    ) -> None:
        ids, epoch = to_numpy(table, key), to_numpy(table, time)
        use = (ids >= 0) & (epoch >= window[0]) & (epoch <= window[1])
        rows = np.flatnonzero(use)
        rows = rows[np.lexsort((to_numpy(table, order)[rows], epoch[rows], ids[rows]))]
        self.table, self.ids = table.take(rows), ids[rows]

    def span(self, number: int) -> tuple[int, int]:
        """First row of an id and the one after its last."""
        low, high = np.searchsorted(self.ids, [number, number + 1])
        return int(low), int(high)


class _Encoded:
    """All rows that the packets of one detector need, encoded once."""

    def __init__(
        self,
        chosen: pa.Table,
        objects: pa.Table,
        history: pa.Table,
        forced: pa.Table,
        around: Surroundings,
        window: tuple[float, float],
    ) -> None:
        self.objects = to_numpy(chosen, "diaObjectId")
        self.bodies = to_numpy(chosen, "ssObjectId")
        self.source = encode(chosen, RECORDS["diaSource"])
        self.source_more = encode(chosen, RECORDS["diaSourceMore"])
        self.object, self.object_more, self.object_row = _pick(
            objects, "diaObjectId", self.objects, ("diaObject", "diaObjectMore")
        )
        history, forced = _of(history, self.objects, self.bodies), _of(forced, self.objects)
        names = ("midpointMjdTai", "diaSourceId", window)
        self.past = _Timeline(history, "diaObjectId", *names)
        self.past_rows = encode(self.past.table, RECORDS["diaSource"])
        self.body_past = _Timeline(history, "ssObjectId", *names)
        self.body_past_rows = encode(self.body_past.table, RECORDS["diaSource"])
        self.forced = _Timeline(forced, "diaObjectId", "midpointMjdTai", "visit", window)
        self.forced_rows = encode(self.forced.table, RECORDS["diaForcedSource"])
        self.forced_more = encode(self.forced.table, RECORDS["diaForcedSourceMore"])
        self._solar_system(chosen, around)
        self._limits(around, window)
        matches = _or_empty(around.matches, DIA_OBJECT_TO_OBJECT_MATCH)
        matches = _of(matches, self.objects).sort_by(
            [("diaObjectId", "ascending"), ("objectType", "descending"), ("rank", "ascending")]
        )
        self.match_ids = to_numpy(matches, "diaObjectId")
        self.matches = encode(matches, RECORDS["nearbyObject"])

    def _solar_system(self, chosen: pa.Table, around: Surroundings) -> None:
        ids = to_numpy(chosen, "diaSourceId")
        ss_sources = _or_empty(around.ss_sources, SS_SOURCE)
        self.ss, _, self.ss_row = _pick(ss_sources, "diaSourceId", ids, ("ssSource", "ssSource"))
        earlier = _or_empty(around.ss_history, SS_SOURCE)
        keep = np.isin(
            to_numpy(earlier, "diaSourceId"), to_numpy(self.body_past.table, "diaSourceId")
        )
        earlier = earlier.filter(pa.array(keep))
        earlier = earlier.sort_by([("ssObjectId", "ascending"), ("diaSourceId", "ascending")])
        self.ss_past_ids = to_numpy(earlier, "ssObjectId")
        self.ss_past = encode(earlier, RECORDS["ssSource"])
        orbits = _or_empty(around.orbits, MPC_ORBITS)
        orbits = orbits.filter(pc.is_in(orbits["designation"], ss_sources["designation"]))
        self.orbits = encode(orbits, RECORDS["mpc_orbits"])
        known = {name: k for k, name in enumerate(to_numpy(orbits, "designation"))}
        bodies = to_numpy(ss_sources, "diaSourceId"), to_numpy(ss_sources, "designation")
        name = dict(zip(*bodies, strict=True))
        self.orbit_row = [known.get(name.get(i), -1) for i in ids]

    def _limits(self, around: Surroundings, window: tuple[float, float]) -> None:
        limits = _or_empty(around.limits, NOISE_LIMIT)
        before = (window[0], float(np.nextafter(window[1], -np.inf)))
        self.limit = _Timeline(limits, "diaObjectId", "midpointMjdTai", "visit", before)
        self.limit_keys = _pairs(self.limit.table)
        self.limit_rows = encode(self.limit.table, RECORDS["noiseLimit"])
        self.past_keys, self.forced_keys = _pairs(self.past.table), _pairs(self.forced.table)

    def limits(self, number: int) -> bytes | None:
        """Visits without a measurement of an object, as an Avro array."""
        if number < 0:
            return None
        measured = set(self.past_keys[slice(*self.past.span(number))])
        measured.update(self.forced_keys[slice(*self.forced.span(number))])
        span = range(*self.limit.span(number))
        rows = [self.limit_rows[i] for i in span if self.limit_keys[i] not in measured]
        return long(len(rows)) + b"".join(rows) + b"\x00" if rows else None


def _pairs(table: pa.Table) -> list[tuple[int, int]]:
    """Visit and detector of each row."""
    visits, detectors = to_numpy(table, "visit").tolist(), to_numpy(table, "detector").tolist()
    return list(zip(visits, detectors, strict=True))


def _or_empty(table: pa.Table | None, kind: object) -> pa.Table:
    return kind.empty() if table is None else table  # type: ignore[attr-defined]


def _of(table: pa.Table, objects: _Integers, bodies: _Integers | None = None) -> pa.Table:
    """Rows that belong to the objects or the bodies."""
    keep = np.isin(to_numpy(table, "diaObjectId"), objects[objects >= 0])
    if bodies is not None:
        keep |= np.isin(to_numpy(table, "ssObjectId"), bodies[bodies >= 0])
    return table.filter(pa.array(keep))


def _pick(
    table: pa.Table, key: str, wanted: _Integers, records: tuple[str, str]
) -> tuple[Rows, Rows, _Integers]:
    """Encode a table twice and find the row of each wanted id, -1 where there is none."""
    ids = to_numpy(table, key)
    order = np.argsort(ids)
    place = np.searchsorted(ids[order], wanted)
    inside = np.minimum(place, max(len(ids) - 1, 0))
    found = np.full(len(wanted), -1, np.int64)
    if len(ids):
        found = np.where(ids[order][inside] == wanted, order[inside], -1)
    used = np.unique(found[found >= 0])
    found = np.where(found >= 0, np.searchsorted(used, found), -1)
    table = table.take(used)
    return encode(table, RECORDS[records[0]]), encode(table, RECORDS[records[1]]), found


def _stamps(ids: _Integers, cutouts: pa.Table) -> list[list[bytes]]:
    """Cut-outs of sources, kind by kind."""
    known = {number: k for k, number in enumerate(to_numpy(cutouts, "diaSourceId").tolist())}
    missing = [number for number in ids.tolist() if number not in known]
    if missing:
        raise InputError(
            f"no cut-outs of {len(missing)} sources, {missing[0]} the first",
            expected="those of every source above threshold, which come with the difference",
        )
    rows = cutouts.take(pa.array([known[number] for number in ids.tolist()], pa.int64()))
    return [rows[kind].to_pylist() for kind in CUTOUTS]


def _payload(
    k: int, number: int, encoded: _Encoded, stamps: list[list[bytes]], around: Surroundings
) -> bytes:
    """Put the fields together in the order of `packet_schema`."""
    body, row = int(encoded.bodies[k]), int(encoded.object_row[k])
    if body >= 0:
        past = encoded.body_past_rows.array(*encoded.body_past.span(body))
    else:
        past = encoded.past_rows.array(*encoded.past.span(int(encoded.objects[k])))
    forced = encoded.forced.span(int(encoded.objects[k]))
    ss_row, orbit = int(encoded.ss_row[k]), encoded.orbit_row[k]
    fields = [
        long(number),
        optional(_text(around.observation_reason)),
        optional(_text(around.target_name)),
        encoded.source[k],
        optional(past),
        optional(encoded.forced_rows.array(*forced)),
        optional(encoded.object[row] if row >= 0 else None),
        optional(encoded.ss[ss_row] if ss_row >= 0 else None),
        optional(encoded.orbits[orbit] if orbit >= 0 else None),
    ]
    for files in stamps:
        fields += [b"\x02", long(len(files[k])), files[k]]
    return b"".join(fields) + optional(_more(k, number, encoded, around, forced))


def _more(
    k: int, number: int, encoded: _Encoded, around: Surroundings, forced: tuple[int, int]
) -> bytes:
    row, body = int(encoded.object_row[k]), int(encoded.bodies[k])
    low, high = np.searchsorted(encoded.match_ids, [encoded.objects[k], encoded.objects[k] + 1])
    first, last = np.searchsorted(encoded.ss_past_ids, [body, body + 1])
    fields = [
        long(number),
        text(around.database),
        text(SCHEMA_VERSION),
        optional(_text(around.software)),
        optional(_text(around.run)),
        encoded.source_more[k],
        optional(encoded.object_more[row] if row >= 0 else None),
        optional(encoded.matches.array(int(low), int(high))),
        optional(encoded.forced_more.array(*forced)),
        optional(encoded.ss_past.array(int(first), int(last))),
        optional(encoded.limits(int(encoded.objects[k]))),
    ]
    return b"".join(fields)


def _text(value: str | None) -> bytes | None:
    return None if value is None else text(value)


def _ledger(
    sources: pa.Table,
    reasons: npt.NDArray[np.str_],
    encoded: _Encoded,
    packets: list[Packet],
    processed: float,
) -> pa.Table:
    emitted = reasons == ""
    place = np.full(len(reasons), np.nan)
    place[emitted] = np.arange(len(packets))
    spans: dict[str, list[tuple[int, int]]] = {"nHistory": [], "nForced": []}
    for number, body in zip(encoded.objects.tolist(), encoded.bodies.tolist(), strict=True):
        past = encoded.body_past.span(body) if body >= 0 else encoded.past.span(number)
        spans["nHistory"].append(past)
        spans["nForced"].append(encoded.forced.span(number))
    columns: dict[str, object] = {
        name: sources.column(name)
        for name in ("diaSourceId", "visit", "detector", "diaObjectId", "ssObjectId")
    }
    for name, pairs in spans.items():
        columns[name] = np.full(len(reasons), np.nan)
        columns[name][emitted] = [last - first for first, last in pairs]  # type: ignore[index]
    sizes = np.full(len(reasons), np.nan)
    sizes[emitted] = [len(packet.payload) for packet in packets]
    columns |= {
        "emitted": emitted,
        "reason": [reason or None for reason in reasons.tolist()],
        "position": place,
        "sizeBytes": sizes,
        "midpointMjdTai": sources.column("midpointMjdTai"),
    }
    constants = {"schemaVersion": SCHEMA_VERSION, "timeProcessedMjdTai": processed}
    if not sources.num_rows:
        return ALERT.empty()
    return ALERT.to_arrow(columns, **constants)
