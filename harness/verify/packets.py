"""The alert containers of a campaign, each read once for all checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from harness.system.processes import running_pool
from harness.verify.alerts import Check, check
from pipeline.errors import NightjarError
from pipeline.schema import TABLES

if TYPE_CHECKING:
    from harness.verify.context import Context, Unit

__all__ = ["ANNOUNCED", "Container", "containers", "quoted_sources", "table_of"]

ANNOUNCED = ("DiaSource", "DiaForcedSource")
"""Tables whose rows stand in packets."""


@dataclass(frozen=True, slots=True)
class Container:
    """What one file holds.

    Attributes
    ----------
    check : Check, optional
        Outcome of the assertions; None where the file cannot be read.
    rows : dict of str to pyarrow.Table
        Rows of the tables that its packets quote, in the words of the packets, each once.
    fault : str
        Why it cannot be read.
    """

    check: Check | None = None
    rows: dict[str, pa.Table] = field(default_factory=dict)
    fault: str = ""


def containers(context: Context, cutouts_every: int = 0) -> dict[Unit, Container]:
    """Read the alert file of every unit that has one, in a few processes.

    Parameters
    ----------
    context : Context
        The campaign; its memory keeps what was read by the state of the files.
    cutouts_every : int
        Decode the cut-outs of every so manieth packet; with 0 it does not matter.

    Returns
    -------
    dict
        Containers by unit.
    """
    memory: dict[Any, Container] = context.memory.setdefault("alerts", {})
    paths = {u: context.product("alerts", u) for u in context.expected("alerts")}
    stamps = {u: _stamp(p) for u, p in paths.items() if p.is_file()}
    every = {u: cutouts_every or _known(memory, stamp) for u, stamp in stamps.items()}
    todo = [u for u in stamps if (*stamps[u], every[u]) not in memory]
    jobs = [(paths[u], every[u]) for u in todo]
    for unit, container in zip(todo, _read_all(jobs, context.jobs), strict=True):
        memory[*stamps[unit], every[unit]] = container
    return {u: memory[*stamp, every[u]] for u, stamp in stamps.items()}


_USUAL = 8  # what AG-00-30 asks for: its files are then read once


def _known(memory: Mapping[Any, Container], stamp: tuple[int, ...]) -> int:
    """How the cut-outs of a file were decoded that was read before."""
    return next((key[-1] for key in memory if key[:-1] == stamp), _USUAL)


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _read_all(jobs: list[tuple[Path, int]], processes: int) -> list[Container]:
    if processes < 2 or len(jobs) < 2:
        return [_read(j) for j in jobs]
    with running_pool(min(processes, len(jobs))) as pool:
        return list(pool.map(_read, jobs))


def _read(job: tuple[Path, int]) -> Container:
    path, every = job
    quoted: _Quoted = {name: {} for name in ANNOUNCED}
    try:
        outcome = check(path, cutouts_every=every, watch=lambda packet: _keep(quoted, packet))
    except NightjarError as err:
        return Container(fault=str(err))
    return Container(outcome, {name: table_of(name, quoted[name].values()) for name in ANNOUNCED})


_Quoted = dict[str, dict[tuple[Any, ...], dict[str, Any]]]


def _keep(quoted: _Quoted, packet: Mapping[str, Any]) -> None:
    sources = [*(packet.get("prvDiaSources") or ()), packet.get("diaSource")]
    _quote(quoted["DiaSource"], sources)
    _quote(quoted["DiaForcedSource"], packet.get("prvDiaForcedSources") or ())


def _quote(known: dict[tuple[Any, ...], dict[str, Any]], rows: Iterable[Any]) -> None:
    for row in rows:
        if isinstance(row, dict):
            known[tuple(row.values())] = row


def quoted_sources(packets: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Collect the sources that packets quote, of each identifier what comes last.

    Parameters
    ----------
    packets : iterable of mapping
        Alerts of LSST.

    Returns
    -------
    list of dict
        Rows of ``DiaSource``.
    """
    quoted: _Quoted = {name: {} for name in ANNOUNCED}
    for packet in packets:
        _keep(quoted, packet)
    rows = quoted["DiaSource"].values()
    return list({row.get("diaSourceId"): row for row in rows}.values())


def table_of(name: str, rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Make a table with the types of the catalogue; columns that it has not are left to Arrow.

    Parameters
    ----------
    name : str
        Which table of the catalogue.
    rows : iterable of dict
        Its rows, all with the columns of the first.

    Returns
    -------
    pyarrow.Table
    """
    rows = list(rows)
    if not rows:
        return TABLES[name].empty()
    declared = TABLES[name].by_name
    fields = [
        pa.field(c, declared[c].arrow_field.type)
        if c in declared
        else pa.field(c, pa.array([r.get(c) for r in rows]).type)
        for c in rows[0]
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
