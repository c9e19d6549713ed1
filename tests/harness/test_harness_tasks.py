"""A task more is one declaration: it is planned, run, resumed, withdrawn, retired and explained."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import harness.tasks
from harness.campaign.campaign import Summary
from harness.campaign.context import Context
from harness.campaign.frames import frames_table
from harness.campaign.run import run_campaign
from harness.campaign.state import RunState
from harness.campaign.store import accept
from harness.campaign.task import Notes, Phase, Stage, Task, WorkItem
from harness.catalog import Catalog
from harness.cli.main import execute
from harness.ledger import Outcome, StageRecord, Target
from harness.settings import Settings
from harness.system.hashes import file_hash
from harness.tasks.alerts import images_with_noise, noise_limits
from harness.tasks.tables import by_item
from harness.tasks.versions import as_of, refresh_forced_means
from harness.workspace import Workspace
from pipeline import diaobject, io
from pipeline.errors import PsfError, WriteError
from pipeline.schema import TABLES, to_numpy

VISITS = (11, 12)


def row(table: str, **values: Any) -> dict[str, Any]:
    """One row of a table with everything that must not be missing."""
    zero = {"str": "", "bool": False}
    required = {c.name: zero.get(c.dtype, 0) for c in TABLES[table].columns if not c.nullable}
    return {**required, **values}


# -- the toy: counts the letters of a file


def letters(space: Workspace, visit: int) -> Path:
    return space.root / "raw" / f"{visit}.txt"


def phases(context: Context) -> Iterator[Phase]:
    frames = [f for f in context.frames.values() if f.unit in context.chosen]
    yield Phase("toy", len(frames), (toy_item(context, Target(*f.unit)) for f in frames))


def toy_item(context: Context, target: Target) -> WorkItem:
    content = context.state.hashes.of(letters(context.space, target.visit))
    keys = TOY.keys(context.settings, content)
    return WorkItem(task=TOY, target=target, keys=keys, **context.common())


def run_toy(item: WorkItem, outcome: Outcome) -> Iterator[Notes]:
    text = letters(item.space, item.target.visit).read_text()
    if not text:
        raise PsfError("no letters", stars=0)
    visit = item.target.visit
    peaks = [
        row("candidate", candidateId=100 * visit + i, visit=visit, detector=1)
        for i, _ in enumerate(text)
    ]
    io.write_parquet(
        item.output.staging("candidate", *item.unit), TABLES["candidate"].from_rows(peaks)
    )
    item.products[0].write_text(text.upper())
    outcome.wrote(item.products[0])
    yield (f"{len(text)} letters",)


def toy_products(space: Workspace, target: Target) -> tuple[Path, ...]:
    return (space.root / "products" / "difference" / f"{target.name}.txt",)


def toy_planned(context: Context) -> set[Target]:
    return {Target(*unit) for unit in context.frames}


TOY = Task(
    name="toy",
    label="toy",
    stages=(Stage("letters", "isr"),),
    phases=phases,
    run=run_toy,
    products=toy_products,
    staged=("candidate",),
    planned=toy_planned,
)


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace of two visits whose only task is the toy."""
    made = Workspace.create(tmp_path / "toy")
    made.config.write_text('[campaign]\ncamera = "testcam"\n[execution]\nexecutor = "serial"\n')
    expose(made, VISITS)
    for visit in VISITS:
        letters(made, visit).write_text("abc")
    monkeypatch.setattr(harness.tasks, "TASKS", (TOY,))
    monkeypatch.setattr("harness.execute.compilation.compile_loops", lambda _: None)
    return made


def expose(space: Workspace, visits: tuple[int, ...]) -> None:
    exposures = [
        row("exposure", visit=v, band="g", file=f"raw/{v}.txt", midpointMjdTai=57000.0 + v)
        for v in visits
    ]
    io.write_parquet(space.exposures, TABLES["exposure"].from_rows(exposures))
    members = [{"visit": v, "detector": 1, "file": f"raw/{v}.txt"} for v in visits]
    io.write_parquet(space.frames, frames_table(members))


def run(space: Workspace, **options: bool) -> Summary:
    return run_campaign(space.root, quiet=True, **options)  # type: ignore[arg-type]


def peaks(space: Workspace) -> dict[int, int]:
    with Catalog(space.catalog, read_only=True) as catalog:
        rows = catalog.rows("SELECT visit, count(*) AS n FROM candidate GROUP BY 1")
    return {r["visit"]: r["n"] for r in rows}


def test_new_task_is_planned_run_and_found_done(space: Workspace) -> None:
    assert run(space, dry_run=True).counts["toy"] == {"todo": 2}
    assert not space.catalog.exists()
    assert run(space).counts["toy"] == {"done": 2}
    assert peaks(space) == {11: 3, 12: 3}
    assert run(space).counts["toy"] == {"cached": 2}


def test_changed_input_and_missing_product_are_done_again_and_named(space: Workspace) -> None:
    run(space)
    letters(space, 11).write_text("abcd")
    toy_products(space, Target(12, 1))[0].unlink()
    summary = run(space)
    assert [(r[1], r[4]) for r in summary.reasons] == [
        (11, "input of letters changed"),
        (12, "products/difference/12_01.txt is missing"),
    ]
    assert peaks(space) == {11: 4, 12: 3}


@pytest.mark.parametrize("what", ["changed", "missing"])
def test_lost_and_damaged_staged_rows_are_made_again(space: Workspace, what: str) -> None:
    run(space)
    staged = space.staging("candidate", 11, 1)
    staged.unlink() if what == "missing" else staged.write_bytes(b"PAR1 no more")
    summary = run(space)
    reason = f"staging/candidate/11_01.parquet {'is' if what == 'missing' else 'was'} {what}"
    assert [(r[1], r[4]) for r in summary.reasons] == [(11, reason)]
    assert run(space).counts["toy"] == {"cached": 2}
    assert peaks(space) == {11: 3, 12: 3}


def failing(fault: Callable[[WorkItem], None]) -> Callable[..., Iterator[Notes]]:
    """Work of the toy to which something happens at the end, on visit 11."""

    def run_and_fail(item: WorkItem, outcome: Outcome) -> Iterator[Notes]:
        for notes in run_toy(item, outcome):
            if item.target.visit == 11:
                fault(item)
            yield notes

    return run_and_fail


def full_disk(_: WorkItem) -> None:
    raise WriteError("cannot be written: No space left on device", path="f")


def lose_rows(item: WorkItem) -> None:
    item.output.staging("candidate", *item.unit).unlink()


def spoil_rows(item: WorkItem) -> None:
    item.output.staging("candidate", *item.unit).write_bytes(b"PAR1 no more")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(full_disk, "WRITE_FAILED"), (lose_rows, "IO_FAILED"), (spoil_rows, "IO_FAILED")],
)
def test_what_the_disk_did_is_tried_again_at_the_next_run(
    space: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[WorkItem], None],
    cause: str,
) -> None:
    broken = replace(TOY, run=failing(fault))
    with monkeypatch.context() as context:
        context.setattr(harness.tasks, "TASKS", (broken,))
        context.setitem(globals(), "TOY", broken)
        summary = run(space)
    assert [(t.visit, t.cause) for t in summary.troubles] == [(11, cause)]
    assert peaks(space) == {12: 3}
    summary = run(space)
    assert [(r[1], r[4]) for r in summary.reasons] == [(11, f"failed before: {cause}")]
    assert summary.exit_code == 0
    assert peaks(space) == {11: 3, 12: 3}


def test_failure_takes_files_and_rows_away_and_is_not_tried_again(space: Workspace) -> None:
    run(space)
    letters(space, 11).write_text("")
    assert run(space).exit_code == 1
    assert peaks(space) == {12: 3}
    assert not toy_products(space, Target(11, 1))[0].exists()
    assert not space.staging("candidate", 11, 1).exists()
    assert run(space).counts["toy"] == {"failed": 1, "cached": 1}
    assert run(space, retry=True).counts["toy"] == {"failed": 1, "cached": 1}
    with Catalog(space.catalog, read_only=True) as catalog:
        unit = catalog.rows("SELECT status, cause FROM unit WHERE visit = 11")
    assert unit == [{"status": "failed", "cause": "PSF_FAILED"}]


def test_what_the_plan_no_longer_has_is_taken_away(space: Workspace) -> None:
    run(space)
    expose(space, VISITS[1:])
    assert run(space).counts["toy"] == {"cached": 1}
    assert peaks(space) == {12: 3}
    assert not toy_products(space, Target(11, 1))[0].exists()
    with Catalog(space.catalog, read_only=True) as catalog:
        assert catalog.value("SELECT count(*) FROM unit WHERE visit = 11") == 0


def test_new_stage_is_explained_in_its_place(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(space)
    capsys.readouterr()
    assert execute(["explain", str(space.root), "11", "1", "--json"]) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert (stage["stage"], stage["status"], stage["notes"]) == ("letters", "done", "3 letters")
    assert harness.tasks.stages() == ("letters",)
    rows = [{"stage": "letters"}, {"stage": "of another version"}, {"stage": "letters"}]
    assert [r["stage"] for r in harness.tasks.in_order(rows)][-1] == "of another version"


def test_stages_keep_the_names_that_workspaces_know() -> None:
    assert harness.tasks.stages() == (
        "isr", "calibrate", "template", "subtract", "diasource", "diaobject", "forced", "alerts",
    )  # fmt: skip


# -- versions of objects ---------------------------------------------------------------------------


def versions_of(rng: np.random.Generator, number: int) -> list[dict[str, Any]]:
    """Versions of one object, oldest first, each with one source more."""
    times = np.sort(rng.uniform(57000.0, 57010.0, rng.integers(1, 6)))
    return [
        row("DiaObject", diaObjectId=number, ra=10.0, dec=-5.0 + number / 100,
            firstDiaSourceMjdTai=times[0], lastDiaSourceMjdTai=t, nDiaSources=i + 1,
            validityStartMjdTai=t)
        for i, t in enumerate(times)
    ]  # fmt: skip


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[tuple[Catalog, list[dict[str, Any]]]]:
    """A catalogue of thirty objects with versions and forced fluxes, and these versions."""
    rng = np.random.default_rng(5)
    versions = [versions_of(rng, n) for n in range(1, 31)]
    forced = [
        row("DiaForcedSource", diaForcedSourceId=100 * n + k, diaObjectId=n, visit=k, detector=1,
            band="gr"[k % 2], midpointMjdTai=57000.5 + k, psfFlux=rng.normal(),
            psfFluxErr=rng.uniform(0.5, 2.0))
        for n in range(1, 31) for k in range(9)
    ]  # fmt: skip
    with Catalog(tmp_path / "versions.duckdb") as catalog:
        catalog.insert_rows("DiaObject", [v[-1] for v in versions])
        catalog.insert_rows("DiaObjectHistory", [r for v in versions for r in v[:-1]])
        catalog.insert_rows("DiaForcedSource", forced)
        yield catalog, [r for v in versions for r in v]


def known(versions: list[dict[str, Any]], mjd: float, window: float) -> list[tuple[int, int]]:
    """Objects that are known at a time, and the number of sources of the version."""
    expected = []
    for number in range(1, 31):
        own = [v for v in versions if v["diaObjectId"] == number]
        then = [v for v in own if v["lastDiaSourceMjdTai"] <= mjd]
        if own[0]["firstDiaSourceMjdTai"] <= mjd + window:
            expected.append((number, (then or own[:1])[-1]["nDiaSources"]))
    return expected


@pytest.mark.parametrize("window", [0.0, 2.0])
@pytest.mark.parametrize("mjd", [57000.0, 57004.0, 57011.0])
def test_version_at_a_time_is_the_latest_known_or_else_the_first(
    objects: tuple[Catalog, list[dict[str, Any]]], mjd: float, window: float
) -> None:
    catalog, versions = objects
    asked = pa.table({"item": [1] * 11 + [0] * 30, "diaObjectId": [*range(10, 21), *range(1, 31)],
                      "mjd": [mjd + 1.0] * 11 + [mjd] * 30})  # fmt: skip
    all_then, some_later = by_item(as_of(catalog, asked, ["diaObjectId", "nDiaSources"], window), 2)
    assert [tuple(r.values()) for r in all_then.to_pylist()] == known(versions, mjd, window)
    expected = [pair for pair in known(versions, mjd + 1.0, window) if 10 <= pair[0] <= 20]
    assert [tuple(r.values()) for r in some_later.to_pylist()] == expected


def marked(catalog: Catalog) -> int:
    """Objects whose forced fluxes have to be averaged."""
    return int(catalog.value("SELECT count(*) FROM DiaObject WHERE g_fpFluxNdata IS NULL"))


@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_each_version_averages_the_forced_fluxes_before_the_one_that_follows(
    objects: tuple[Catalog, list[dict[str, Any]]],
    at_a_time: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalog, versions = objects
    monkeypatch.setattr("harness.tasks.versions._OBJECTS_AT_A_TIME", at_a_time)
    assert marked(catalog) == 30
    forced = catalog.table("DiaForcedSource", "true ORDER BY diaForcedSourceId")
    time = to_numpy(forced, "midpointMjdTai")
    expected = []
    for number in range(1, 31):
        own = [v for v in versions if v["diaObjectId"] == number]
        until = [v["lastDiaSourceMjdTai"] for v in own[1:]] + [np.inf]
        for version, end in zip(own, until, strict=True):
            table = TABLES["DiaObject"].from_rows([version])
            expected.append(diaobject.with_forced(table, forced.filter(pa.array(time < end))))
    refresh_forced_means(catalog)
    both = "SELECT * FROM DiaObject UNION ALL BY NAME SELECT * FROM DiaObjectHistory"
    found = catalog.query(f"SELECT * FROM ({both}) ORDER BY diaObjectId, lastDiaSourceMjdTai")
    assert found.cast(TABLES["DiaObject"].arrow_schema).equals(pa.concat_tables(expected))
    assert catalog.count("DiaObject") == 30
    assert marked(catalog) == 0


def test_forced_means_are_stored_where_they_differ(
    objects: tuple[Catalog, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, _ = objects
    refresh_forced_means(catalog)
    before = [catalog.table(name) for name in ("DiaObject", "DiaObjectHistory")]
    stored, update = [], Catalog.update

    def spy(self: Catalog, table: str, rows: pa.Table, *key: str) -> None:
        if rows.num_rows:
            stored.append((table, rows.num_rows, {name[:2] for name in rows.column_names} - {"ro"}))
        update(self, table, rows, *key)

    monkeypatch.setattr(Catalog, "update", spy)
    catalog.fetch("UPDATE DiaObject SET g_fpFluxNdata = NULL WHERE diaObjectId <= 3")
    refresh_forced_means(catalog)
    assert stored == [("DiaObject", 3, {"g_"})]
    assert [catalog.table(name) for name in ("DiaObject", "DiaObjectHistory")] == before


def test_differences_that_show_a_place_say_how_deep_they_are(tmp_path: Path) -> None:
    """Two overlapping images across 0 h, one turned round, at three epochs."""
    corners = {1: (359.99, 0.01), 2: (0.005, 0.025)}
    with Catalog(tmp_path / "limits.duckdb") as catalog:
        for visit, mjd in ((1, 57000.0), (2, 57010.0), (3, 57020.0)):
            for detector, (west, east) in corners.items():
                low, high = (-0.01, 0.01) if visit < 3 else (0.01, -0.01)
                image = row("visit_image", visit=visit, detector=detector, midpointMjdTai=mjd,
                            visitImageId=f"{visit}_{detector}", llcra=west, llcdec=low,
                            lrcra=east, lrcdec=low, urcra=east, urcdec=high, ulcra=west,
                            ulcdec=high)  # fmt: skip
                catalog.insert_rows("visit_image", [image])
                made = row("difference_image", visit=visit, detector=detector, band="g",
                           differenceImageId=f"{visit}_{detector}",
                           depth5=31.4 if detector == 1 else None)  # fmt: skip
                catalog.insert_rows("difference_image", [made])
        catalog.fetch("UPDATE difference_image SET depth5 = 28.9 WHERE visit = 2")
        objects = pa.table({"diaObjectId": [5, 6, 7], "ra": [0.007, 0.02, 359.95],
                            "dec": [0.001, -0.009, 0.0]})  # fmt: skip
        images = images_with_noise(catalog)
    found = noise_limits(images, objects, (57000.0, 57020.0))
    later = noise_limits(images, objects, (57000.5, 57021.0))
    rows = found.select(["diaObjectId", "visit", "detector"]).to_pylist()
    assert [tuple(r.values()) for r in rows] == [(5, 1, 1), (5, 2, 1), (5, 2, 2), (6, 2, 2)]
    assert found["limit"].to_pylist() == pytest.approx([1.0, 10.0, 10.0, 10.0], rel=1e-6)
    assert later["visit"].to_pylist() == [2, 2, 2, 3]


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """A connection that dies before a given statement, and from then on."""

    def __init__(self, connection: Any, statements: int) -> None:
        self.connection, self.left = connection, statements

    def __getattr__(self, name: str) -> Any:
        if name in ("execute", "sql"):
            self.left -= 1
            if self.left < 0:
                raise Killed
        return getattr(self.connection, name)


def remeasured(space: Workspace, catalog: Catalog) -> None:
    """What a run does after the difference of visit 4 has been made again with other objects."""
    state = RunState(space, Settings(), catalog, "run")
    target = Target(4, 1)
    item = WorkItem(
        task=harness.tasks.forced.TASK, target=target, keys=(), space=space, output=space,
        settings=state.settings, cards={},
    )  # fmt: skip
    if state.status(target, "forced") != "done":
        accept(state, item, Outcome(target, [StageRecord(4, 1, "forced", "done")]))
    refresh_forced_means(catalog)


def test_forced_means_survive_a_kill_at_any_statement(
    objects: tuple[Catalog, list[dict[str, Any]]], tmp_path: Path
) -> None:
    catalog, _ = objects
    refresh_forced_means(catalog)
    names = ("DiaObject", "DiaObjectHistory", "DiaForcedSource", "unit")
    before = {name: catalog.table(name) for name in names}
    space, alive = Workspace.create(tmp_path / "space"), catalog._connection
    rows = [
        row("DiaForcedSource", diaForcedSourceId=100 * n + 50, diaObjectId=n, visit=4, detector=1,
            band="g", midpointMjdTai=57004.5, psfFlux=7.0, psfFluxErr=0.1)
        for n in range(1, 31, 2)
    ]  # fmt: skip
    staged = TABLES["DiaForcedSource"].from_rows(rows)
    io.write_parquet(space.staging("DiaForcedSource", 4, 1), staged)
    expected: list[pa.Table] = []
    for statements in [1000, *range(100)]:
        catalog._connection = mortal = Mortal(alive, statements)
        with contextlib.suppress(Killed):
            remeasured(space, catalog)
        catalog._connection = alive
        with contextlib.suppress(duckdb.TransactionException):
            alive.rollback()  # as opening the file does
        remeasured(space, catalog)
        assert marked(catalog) == 0
        found = [catalog.table(name, "true ORDER BY ALL") for name in names[:3]]
        expected = expected or found
        assert found == expected, f"killed before statement {statements}"
        if statements < 1000 and mortal.left >= 0:
            break
        for name in names:
            catalog.replace(name, before[name])
    assert 15 < statements < 99


@pytest.mark.slow
def test_one_worker_makes_what_two_make(campaign: Path, tmp_path: Path) -> None:
    alone = Workspace.create(tmp_path / "alone")
    alone.config.write_bytes((campaign / "nightjar.toml").read_bytes())
    for name in ("raw", "calib", "refcat", "ephemerides"):
        (alone.root / name).rmdir()
        (alone.root / name).symlink_to(campaign / name)
    assert execute(["run", str(alone.root), "-q", "-j", "1"]) == 0
    made = sorted((campaign / "products").rglob("*.fits"))
    assert len(made) == 24
    for path in made:
        assert file_hash(alone.root / path.relative_to(campaign)) == file_hash(path)
