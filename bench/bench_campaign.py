"""What the coordinator of a large campaign costs, as JSON lines.

``speed``: HiTS (4,956 science units) is planned, as it is simulated and as ingested frames with
corners on the sky; with outcomes and (empty) files of all units under the keys of the plan, 50
sources and 60 forced ones each, it is planned again, with the hashes that a run keeps, and looked
at: nothing is to be done; the planner gets 189 CCDs x 1,000 visits; outcomes are recorded, the
first thousand and the last of ten; visits of many CCDs are associated.  Times are processor times,
of whole commands with their start, the second of two.  ``science`` measures nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sims
from bench.report import reporter
from bench.timing import timed
from harness.campaign.context import Context
from harness.campaign.frames import frames_table
from harness.campaign.run import run_campaign
from harness.campaign.state import RunState
from harness.campaign.store import accept, learn_files
from harness.campaign.task import Phase
from harness.catalog import Catalog
from harness.ledger import Outcome, StageRecord, Target
from harness.plan import (
    OPEN,
    SCIENCE,
    TEMPLATE,
    Frame,
    Selection,
    Unit,
    assign_roles,
    plan_templates,
)
from harness.settings import Campaign, Settings
from harness.system.software import software_version
from harness.tasks import TASKS, alerts, association, forced
from harness.tasks.fingerprints import KnownRows
from harness.workspace import Workspace
from pipeline import io
from pipeline.ids import pack
from pipeline.schema import TABLES

_NIGHTJAR = [sys.executable, "-m", "harness.cli.main"]
_CHAIN = ("isr", "calibrate", "subtract", "diasource", "diaobject", "forced", "alerts")
_COSTS = {"cpuS": 1.0, "wallS": 1.0, "peakRssMiB": 500.0}
report = reporter("harness")


def corners(ra: float, dec: float, step: int) -> list[float]:
    """A CCD of 0.15 x 0.30 deg at its place of the focal plane."""
    x, y = ra + 0.16 * (step % 12 - 6), dec + 0.32 * (step // 12 - 3)
    return [x, y, x + 0.15, y, x + 0.15, y + 0.3, x, y + 0.3]


def hits(root: Path, *, ingested: bool, done: bool) -> Workspace:
    """A workspace of HiTS in which everything has ended well, or nothing has begun."""
    profile, space = sims.profiles()["hits"], Workspace.create(root)
    name = "" if ingested else profile.name
    Settings(campaign=Campaign(name="bench", profile=name, camera="decam")).save(space.config)
    exposures, members = [], []
    for visit in profile.visits:
        row = {"visit": visit.number, "band": visit.band, "field": visit.field,
               "exptime": visit.exptime, "midpointMjdTai": visit.midpoint, "ra": visit.ra,
               "dec": visit.dec, "role": visit.role, "file": f"raw/{visit.number}.fits.fz",
               "detectors": " ".join(map(str, profile.detectors))}  # fmt: skip
        exposures.append(row)
        members += [
            {"visit": visit.number, "detector": d, "kind": "raw", "file": row["file"],
             "corners": corners(visit.ra, visit.dec, d)} for d in profile.detectors
        ]  # fmt: skip
    io.write_parquet(space.exposures, TABLES["exposure"].from_rows(exposures))
    if ingested:
        io.write_parquet(space.frames, frames_table(members))
    if not done:
        return space
    with Catalog(space.catalog) as catalog:
        catalog.insert("unit", TABLES["unit"].from_rows(list(outcomes(profile))))
        catalog.insert("visit_image", TABLES["visit_image"].from_rows([
            {"visitImageId": f"{m['visit']}_{m['detector']:02d}", "visit": m["visit"],
             "detector": m["detector"], "psfFwhm": 1.0 + 0.001 * (m["visit"] % 400),
             "ra": m["corners"][0] + 0.075, "dec": m["corners"][1] + 0.15,
             "llcra": m["corners"][0], "llcdec": m["corners"][1],
             "file": "products/x.fits", "sha256": "0"} for m in members
        ]))  # fmt: skip
        finish(space, catalog)
    assert set(sum(run_campaign(root, dry_run=True).counts.values(), Counter())) == {"cached"}
    return space


def fill(catalog: Catalog, units: Collection[Unit]) -> None:
    """Rows of units: 50 sources of as many objects, of three groups on each CCD, 60 forced."""
    catalog.fetch(
        """CREATE TEMP TABLE searched AS SELECT visit, detector, ra, dec,
          57000.0 + visit % 1000 AS mjd, 1000 * detector::BIGINT + visit % 3 * 100000 AS first
        FROM visit_image WHERE list_contains(?, visit * 100 + detector)""",
        [[100 * visit + detector for visit, detector in units]],
    )
    each = "SELECT *, first + k AS number, (visit * 64 + detector) * 1000 + k AS id FROM searched"
    place = {"visit": "visit", "detector": "detector", "ra": "ra + 0.002 * k", "dec": "dec"}
    seen = {**place, "diaObjectId": "number", "midpointMjdTai": "mjd"}
    _fill(catalog, "DiaSource", f"{each}, range(50) r(k)", {**seen, "diaSourceId": "id"})
    _fill(catalog, "DiaForcedSource", f"{each}, range(60) r(k)",
          {**seen, "diaForcedSourceId": "id"})  # fmt: skip
    _fill(catalog, "DiaObject",
          """SELECT diaObjectId, avg(ra) AS ra, avg(dec) AS dec, count(*) AS n,
            min(midpointMjdTai) AS born, max(midpointMjdTai) AS last FROM DiaSource GROUP BY 1""",
          {"diaObjectId": "diaObjectId", "ra": "ra", "dec": "dec", "nDiaSources": "n",
           "firstDiaSourceMjdTai": "born", "lastDiaSourceMjdTai": "last"})  # fmt: skip
    _fill(catalog, "difference_image", "SELECT * FROM searched",
          {**place, "differenceImageId": "visit * 64 + detector", "depth5": "24.0"})  # fmt: skip
    catalog.checkpoint()


def _fill(catalog: Catalog, table: str, rows: str, given: Mapping[str, str]) -> None:
    """Insert rows: some columns as given, random numbers in the others."""
    other = {"str": "''", "bool": "false", "time": "NULL", "f32": "random()", "f64": "random()"}
    values = ", ".join(
        f'({given.get(c.name) or other.get(c.dtype, "0")}) AS "{c.name}"'
        for c in TABLES[table].columns if c.name in given or c.name != "ssObjectId"
    )  # fmt: skip
    catalog.fetch(f'INSERT INTO "{table}" BY NAME SELECT {values} FROM ({rows})')


def finish(space: Workspace, catalog: Catalog) -> None:
    """Make the files of all items of the plan, and record the keys and hashes that a run would."""
    state = RunState(space, Settings.load(space.config), catalog, "bench")
    context = Context(state, Selection(), {"SOFTVER": software_version()}, performing=False)
    fill(catalog, context.template_of)
    for task, sections in ((forced, ("diaobject",)), (alerts, ("alerts", "diaobject"))):
        known = KnownRows(context, task.TASK.name, task._READ, sections)
        for unit in context.frames:
            known.keep(unit, "hash")
    rows = [
        row for task in TASKS for phase in task.phases(context) for row in _made(context, phase)
    ]
    catalog.delete("unit")
    catalog.insert("unit", TABLES["unit"].from_rows(rows))
    state.hashes.save()


def _made(context: Context, phase: Phase) -> Iterator[dict[str, Any]]:
    """Rows of the ledger of a phase, whose files are made as it is planned."""
    empty = _parquet()
    for item in phase.items:
        outcome = Outcome(item.target)
        for path in item.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(empty if path.suffix == ".parquet" else b"")
            outcome.wrote(path)
        learn_files(context.state, outcome)
        context.assume_done(item.targets, item.task.stage_names)
        for target in item.targets:
            for key in item.keys:
                record = StageRecord(*target[:2], key.stage, "done", template_id=target.template_id)
                yield {**record.row(), **_COSTS, "runId": "bench", "inputHash": key.input_hash,
                       "configHash": key.config_hash, "stageVersion": key.version}  # fmt: skip


def _parquet() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        io.write_parquet(Path(folder) / "x.parquet", TABLES["DiaSource"].empty())
        return (Path(folder) / "x.parquet").read_bytes()


def outcomes(profile: sims.Profile) -> Iterable[dict[str, Any]]:
    """Rows of the ledger in which all is done, for which there are no keys yet."""
    for visit in profile.visits:
        for detector in profile.detectors:
            for stage in _CHAIN:
                yield StageRecord(visit.number, detector, stage, "done").row()


def commands() -> None:
    """Plan of HiTS before anything is done, and plan and status when everything is."""
    for kind in ("simulated", "ingested"):
        population = f"HiTS, 5,841 {kind} frames of which 4,956 are searched"
        population += ", 250,000 sources, 300,000 forced"
        for done, name, word, bound in (
            (False, "plan", "run", 5.0),
            (True, "replan", "run", 5.0),
            (True, "status", "status", 1.0),
        ):
            options = ["-n", "--json"] if word == "run" else []
            with tempfile.TemporaryDirectory() as folder:
                space = hits(Path(folder) / "w", ingested=kind == "ingested", done=done)
                cost = timed([*_NIGHTJAR, word, str(space.root), *options], Path(folder))
            report(f"{name}_{kind}", cost.cpu, "CPU-s", bound, population)
            report(f"{name}_{kind}_memory", cost.peak, "MiB", 1000.0, population)


def planner() -> None:
    """Templates of 189 CCDs x 1,000 visits, by role and by overlap on the sky."""
    rng = np.random.default_rng(1)
    pointings = [(10.0 + 0.02 * x, -30.0 + 0.02 * y) for x, y in rng.normal(size=(1000, 2))]
    for kind in ("roles", "overlap"):
        frames = [
            Frame(visit, ccd, "g", "F", _role(kind, visit), 57000.0 + visit, "raw", Path("x"),
                  corners=tuple(corners(*place, ccd)) if kind == "overlap" else ())
            for visit, place in enumerate(pointings) for ccd in range(189)
        ]  # fmt: skip
        start = time.process_time()
        seeing = {frame.unit: 1.0 + 1e-4 * frame.visit for frame in frames}
        plans = plan_templates(assign_roles(frames, Campaign(), seeing), Campaign(), seeing)
        taken = time.process_time() - start
        assert sum(len(plan.serves) for plan in plans) > 180_000
        report(f"planner_{kind}", taken, "CPU-s", 60.0, "189 CCDs x 1,000 visits")


def _role(kind: str, visit: int) -> str:
    if kind == "overlap":
        return OPEN
    return TEMPLATE if visit < 5 else SCIENCE


def recording(number: int = 10_000) -> None:
    """Cost of recording an outcome with 100 forced sources, early and late in a campaign."""
    (task,) = (task for task in TASKS if task.name == "forced")
    with tempfile.TemporaryDirectory() as folder:
        space = Workspace.create(Path(folder) / "w")
        with Catalog(space.catalog) as catalog:
            state = RunState(space, Settings(), catalog, "bench")
            times = [_recorded(state, task, unit) for unit in range(number)]
    early, late = (1000.0 * float(np.median(part)) for part in (times[100:1100], times[-1000:]))
    population = f"{number} outcomes of 100 forced sources"
    report("recording", late, "ms of CPU", 100.0, population)
    report("recording_growth", late / early, "last 1,000 over first", 1.5, population)


def _recorded(state: RunState, task: Any, unit: int) -> float:
    target = Target(400_000 + unit // 60, unit % 60 + 1)
    io.write_parquet(state.space.staging("DiaForcedSource", *target[:2]), _forced(target))
    item = task_item(task, state, target)
    record = StageRecord(*target[:2], "forced", "done", wall_s=1.0, cpu_s=1.0)
    start = time.process_time()
    accept(state, item, Outcome(target, [record]))
    return time.process_time() - start


def _forced(target: Target) -> Any:
    rows: Sequence[dict[str, Any]] = [
        {"diaForcedSourceId": (target.visit * 64 + target.detector) * 1000 + k,
         "diaObjectId": target.detector * 1000 + k, "visit": target.visit,
         "detector": target.detector, "band": "g", "psfFlux": 1.0, "psfFluxErr": 1.0,
         "midpointMjdTai": 57000.0 + target.visit, "ra": 10.0, "dec": -30.0,
         "timeProcessedMjdTai": 61000.0}
        for k in range(100)
    ]  # fmt: skip
    table = TABLES["DiaForcedSource"]
    return table.from_rows(rows)


def task_item(task: Any, state: RunState, target: Target) -> Any:
    from harness.campaign.task import WorkItem

    common = {"space": state.space, "output": state.space, "settings": state.settings}
    keys = task.keys(state.settings, "input")
    return WorkItem(task=task, target=target, keys=keys, cards={}, **common)


def associating(ccds: int, visits: int = 10, per_ccd: int = 100) -> float:
    """CPU-s of the last of some visits of the same variables, rows in the catalogue included."""
    rng, times = np.random.default_rng(3), []
    sky = np.array([(10.0 + 0.2 * (k // per_ccd), -5.0) for k in range(ccds * per_ccd)])
    sky += rng.uniform(0.0, 0.15, sky.shape)
    with tempfile.TemporaryDirectory() as folder:
        space = Workspace.create(Path(folder) / "w")
        with Catalog(space.catalog) as catalog:
            state = RunState(space, Settings(), catalog, "bench")
            for visit in range(visits):
                places = sky + rng.normal(0.0, 0.1 / 3600.0, sky.shape)
                units = tuple((400_000 + visit, ccd + 1) for ccd in range(ccds))
                for ccd, unit in enumerate(units):
                    rows = _sources(unit, places[ccd * per_ccd : (ccd + 1) * per_ccd])
                    io.write_parquet(space.staging("DiaSource", *unit), rows)
                times.append(_associated(state, units))
            assert catalog.count("DiaObject") < 1.05 * len(sky)
    return times[-1]


def _sources(unit: tuple[int, int], places: Any) -> Any:
    visit, detector = unit
    common = {"visit": visit, "detector": detector, "midpointMjdTai": 57000.0 + visit % 1000,
              "band": "g", "x": 1.0, "y": 1.0, "psfNdata": 1, "trailNdata": 1, "dipoleNdata": 1,
              "timeProcessedMjdTai": 61000.0, "bboxSize": 1, "raErr": 3e-5, "decErr": 3e-5,
              "psfFlux": 1000.0, "psfFluxErr": 100.0, "templateFlux": 0.0,
              "isDeblendParent": False, "isSubThreshold": False}  # fmt: skip
    return TABLES["DiaSource"].from_rows(
        [
            {**common, "diaSourceId": pack(visit, detector, k), "ra": ra, "dec": dec}
            for k, (ra, dec) in enumerate(places.tolist(), start=1)
        ]
    )


def _associated(state: RunState, units: tuple[tuple[int, int], ...]) -> float:
    item = association._Item(
        task=association.TASK, target=Target(units[0][0], -1), units=units, cards={},
        keys=association.TASK.keys(state.settings, "input"), catalog=state.catalog,
        space=state.space, output=state.space, settings=state.settings,
    )  # fmt: skip
    start = time.process_time()
    outcome = item.perform()
    assert outcome.status == "done", outcome.trouble
    accept(state, item, outcome)
    return time.process_time() - start


def association_costs() -> None:
    """What a visit costs the coordinator, by its number of CCDs."""
    for ccds in (2, 59, 189):
        population = f"tenth visit of {ccds} CCDs, 100 sources each, on objects of nine"
        report(f"association_{ccds}", associating(ccds), "CPU-s", 60.0, population)


def main() -> None:
    if sys.argv[1:2] == ["science"]:
        return
    commands()
    planner()
    recording()
    association_costs()


if __name__ == "__main__":
    main()
