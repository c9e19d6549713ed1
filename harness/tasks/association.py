"""Sources of one visit after the other become objects: the stage ``diaobject``.

Each visit's key contains that of the visit before, so a change anywhere makes everything after it
stale; then the object tables are emptied and made again from the staged sources.  The items read
the catalogue, so they are done by the coordinator, in the order of time.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.campaign.context import Context
from harness.campaign.task import Blocked, Notes, Phase, Stage, StageKey, Task, WorkItem
from harness.catalog import Catalog
from harness.ledger import DONE, Outcome, Target, now_mjd_tai
from harness.plan import Unit
from harness.system.hashes import combine
from harness.tasks.tables import optional_table
from pipeline import diaobject, io
from pipeline.schema import DIA_OBJECT, DIA_OBJECT_LAST, DIA_SOURCE, METRIC, to_numpy

__all__ = ["TASK", "phase_per_unit", "units_with_sources"]

_TABLES = (
    "DiaSource",
    "DiaObject",
    "DiaObjectHistory",
    "DiaObjectLast",
    "DiaObject_To_Object_Match",
    "SSObject",
    "SSSource",
)
_MARGIN_DEG = 0.01
_WHOLE_VISIT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item(WorkItem):
    """One visit, with the catalogue."""

    catalog: Catalog


# -- plan ----------------------------------------------------------------------------------------


def phase_per_unit(
    task: Task,
    context: Context,
    make: Callable[[Context, Sequence[Unit]], Iterable[WorkItem]],
    at_a_time: int,
) -> Phase:
    """Phase of a task that follows association, one item per unit, in the order of time.

    Parameters
    ----------
    task : Task
        The task.
    context : Context
        The campaign.
    make : callable
        Makes the work items of units.
    at_a_time : int
        For how many units the catalogue is asked at once.

    Returns
    -------
    Phase
        Items for the executor.
    """

    def items() -> Iterator[WorkItem | Blocked]:
        for start in range(0, len(units), at_a_time):
            some = units[start : start + at_a_time]
            ready = [unit for unit in some if context.done(Target(*unit), "diaobject")]
            for unit in sorted(set(some).difference(ready)):
                why = "the association of its visit failed"
                yield Blocked(Target(*unit), why, task.stage_names)
            yield from make(context, ready)

    units = _units(context)
    return Phase(task.label, len(units), items())


def units_with_sources(context: Context) -> set[Target]:
    """Units that can be followed up; what was made of others, whose difference is lost, goes.

    Parameters
    ----------
    context : Context
        The campaign.

    Returns
    -------
    set of Target
        Those of the plan whose sources are there.
    """
    return {Target(*unit) for unit in _units(context)}


def _units(context: Context) -> list[Unit]:
    """Units whose sources are associated, in the order of time."""
    in_time = sorted(context.template_of, key=lambda unit: (context.frames[unit].mjd, unit))
    return [u for u in in_time if context.state.status(Target(*u), "diasource") == DONE]


def _phases(context: Context) -> Iterator[Phase]:
    visits: dict[int, list[Unit]] = defaultdict(list)
    for unit in _units(context):
        visits[unit[0]].append(unit)
    if context.performing and not _continues(context, visits):
        _empty(context)
    yield Phase(TASK.label, len(visits), _items(context, visits), local=True)


def _continues(context: Context, visits: dict[int, list[Unit]]) -> bool:
    """Whether what the tables hold is the beginning of the plan, as it would be made now."""
    state = context.state
    pending = state.targets(TASK.stage_names, (DONE,))
    unknown = {visit for (visit,) in state.catalog.fetch("SELECT DISTINCT visit FROM DiaSource")}
    stored = None
    for visit, key in _keys(context, visits):
        recorded = [state.recorded(Target(*unit), key.stage) for unit in visits[visit]]
        if not all(row is not None and _same(row, key) for row in recorded):
            break
        pending -= {Target(*unit) for unit in visits[visit]}
        unknown.discard(visit)
        stored = recorded[-1] and recorded[-1]["rowCounts"]
    return not (pending or unknown) and stored in (None, _row_counts(state.catalog))


def _row_counts(catalog: Catalog) -> str:
    """Rows of every table that association fills, as JSON."""
    counts = {table: catalog.count(table) for table in _TABLES}
    own = "SELECT count(*) FROM metric WHERE stage = ?"
    return json.dumps(counts | {"metric": catalog.value(own, [TASK.stage_names[0]])})


def _same(row: Mapping[str, object], key: StageKey) -> bool:
    now = (DONE, key.version, key.config_hash, key.input_hash)
    return (row["status"], row["stageVersion"], row["configHash"], row["inputHash"]) == now


def _empty(context: Context) -> None:
    catalog = context.state.catalog
    with catalog.transaction():
        for table in _TABLES:
            catalog.delete(table)
        context.state.forget(TASK.stage_names)


def _keys(context: Context, visits: dict[int, list[Unit]]) -> Iterator[tuple[int, StageKey]]:
    """Key of every visit; each contains the one before."""
    of, of_rows, space = context.state.hashes.of, context.state.hashes.of_rows, context.space
    previous = combine([of(space.ephemerides), of(space.objects)])
    for visit, units in visits.items():
        staged = [of_rows(space.staging("DiaSource", *unit)) for unit in units]
        previous = combine([previous, *staged])
        (key,) = TASK.keys(context.settings, previous)
        yield visit, key


def _items(context: Context, visits: dict[int, list[Unit]]) -> Iterator[_Item | Blocked]:
    failed = None
    for visit, key in _keys(context, visits):
        units = tuple(visits[visit])
        if failed is not None:
            why = f"visit {failed} failed"
            yield from (Blocked(Target(*unit), why, TASK.stage_names) for unit in units)
            continue
        yield _Item(
            task=TASK,
            target=Target(visit, _WHOLE_VISIT),
            keys=(key,),
            units=units,
            catalog=context.state.catalog,
            **context.common(),
        )
        if context.performing and not context.done(Target(*units[0]), key.stage):
            failed = visit


# -- run -----------------------------------------------------------------------------------------


def _run(item: _Item, outcome: Outcome) -> Iterator[Notes]:
    staged = [io.read_parquet(item.space.staging("DiaSource", *unit)) for unit in item.units]
    sources = pa.concat_tables(staged).cast(DIA_SOURCE.arrow_schema)
    known, history = _region(item.catalog, sources, item.settings.diaobject)
    result = diaobject.run(
        sources,
        known,
        history,
        optional_table(item.space.ephemerides),
        optional_table(item.space.objects),
        item.settings.diaobject,
        processed_mjd_tai=now_mjd_tai(),
    )
    outcome.tables = {
        "DiaSource": result.sources,
        "DiaObject": result.objects,
        "DiaObjectLast": result.objects.select(DIA_OBJECT_LAST.names),
        "DiaObjectHistory": result.superseded,
        "DiaObject_To_Object_Match": result.matches,
        "SSObject": _bodies(item.catalog, result),
        "SSSource": result.ss_sources,
        "metric": METRIC.from_rows(_metrics(item, result)),
    }
    yield ()


def _bodies(catalog: Catalog, result: diaobject.Result) -> pa.Table:
    """Summarise the solar-system bodies of the visit from all their sources so far."""
    bodies = result.ss_sources.select(["ssObjectId"])
    earlier = [
        catalog.query_with(bodies, f"SELECT * FROM {name} SEMI JOIN {{batch}} USING (ssObjectId)")
        for name in ("DiaSource", "SSSource")
    ]
    sources, ss_sources = (
        pa.concat_tables([new, old.select(new.column_names).cast(new.schema)])
        for new, old in zip((result.sources, result.ss_sources), earlier, strict=True)
    )
    return diaobject.summarise_bodies(sources, ss_sources)


def _metrics(item: _Item, result: diaobject.Result) -> Sequence[dict[str, Any]]:
    where = {"visit": item.target.visit, "stage": "diaobject", "runId": item.cards.get("RUNID")}
    return [{**where, "name": name, "value": value} for name, value in result.metrics.items()]


def _region(
    catalog: Catalog, sources: pa.Table, config: diaobject.Config
) -> tuple[pa.Table, pa.Table]:
    """Return the current objects that sources may belong to, and all their sources so far."""
    if not sources.num_rows:
        return DIA_OBJECT.empty(), DIA_SOURCE.empty()
    condition, values = _box(to_numpy(sources, "ra"), to_numpy(sources, "dec"))
    places = catalog.query(
        f"SELECT {', '.join(diaobject.PLACES)} FROM DiaObject WHERE {condition}", values
    )
    ids = pa.table({"diaObjectId": diaobject.candidates(sources, places, config)})
    objects, history = (
        catalog.query_with(
            ids,
            f"SELECT {', '.join(columns)} FROM {table.name} SEMI JOIN {{batch}} USING (diaObjectId)"
            f" ORDER BY {table.key[0]}",
        ).cast(pa.schema([table[name].arrow_field for name in columns]))
        for table, columns in ((DIA_OBJECT, DIA_OBJECT.names), (DIA_SOURCE, diaobject.HISTORY))
    )
    return objects, history


def _box(ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]) -> tuple[str, list[float]]:
    """Write the SQL condition for the neighbourhood of sources; no limit in RA across 0 h."""
    low, high = float(dec.min()) - _MARGIN_DEG, float(dec.max()) + _MARGIN_DEG
    condition, values = "dec BETWEEN ? AND ?", [low, high]
    margin = _MARGIN_DEG / max(float(np.cos(np.deg2rad(max(abs(low), abs(high))))), 1e-6)
    if ra.max() - ra.min() < 180.0 and margin < 90.0:
        condition += " AND ra BETWEEN ? AND ?"
        values += [float(ra.min()) - margin, float(ra.max()) + margin]
    return condition, values


def _store(catalog: Catalog, outcome: Outcome) -> None:
    """Replace the visit's rows and the objects that changed; former versions are kept."""
    tables, visit = outcome.tables, outcome.target.visit
    catalog.replace("DiaSource", tables["DiaSource"], visit=visit)
    for name in ("DiaObject", "DiaObjectLast"):
        catalog.replace_keys(name, tables[name], "diaObjectId")
    catalog.insert("DiaObjectHistory", tables["DiaObjectHistory"])
    catalog.delete_keys("DiaObject_To_Object_Match", tables["DiaObject"], "diaObjectId")
    catalog.insert("DiaObject_To_Object_Match", tables["DiaObject_To_Object_Match"])
    catalog.insert("SSSource", tables["SSSource"])
    catalog.replace_keys("SSObject", tables["SSObject"], "ssObjectId")
    catalog.replace("metric", tables["metric"], visit=visit, stage="diaobject")
    outcome.finish(row_counts=_row_counts(catalog))


TASK = Task(
    name="association",
    label="association",
    stages=(Stage("diaobject"),),
    phases=_phases,
    run=_run,
    store=_store,
)
