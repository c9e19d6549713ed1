"""One slice: a workspace of its own that is simulated, run, judged, and made small again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sims
from harness.campaign.run import run_campaign
from harness.catalog import Catalog
from harness.report.judge import judge_workspace
from harness.settings import Campaign, Settings
from harness.slices.slices import Slice
from harness.system.processes import heeded_termination, running_pool
from harness.verify.pin import pin
from harness.workspace import Workspace, atomic, translate_os_errors
from pipeline.errors import ConfigError

__all__ = ["RECORD", "process_slice"]

RECORD = "slice.json"
"""What is kept of a slice beside its catalogue, logs and report; it is there when all is done."""

_LARGE = ("raw", "calib", "refcat", "ephemerides", "truth", "products", "staging", "alerts")
_COSTS = """SELECT stage, count(*) AS n, sum(cpuS) AS cpuS, max(peakRssMiB) AS peakRssMiB
    FROM unit WHERE status = 'done' GROUP BY stage ORDER BY stage"""
_STATES = """SELECT coalesce(cause, status) AS state, count(*) AS n FROM (
      SELECT visit, detector, any_value(cause ORDER BY cause) AS cause,
        CASE WHEN bool_and(status = 'done') THEN 'done' ELSE 'failed' END AS status
      FROM unit WHERE visit > 0 AND detector > 0 GROUP BY visit, detector)
    GROUP BY 1 ORDER BY 1"""
_KNOWN = "SELECT DISTINCT visit, detector FROM unit WHERE visit > 0 AND detector > 0"


def _silent(_: str) -> None:
    """Say nothing."""


def process_slice(
    folder: Path,
    part: Slice,
    profile: str,
    *,
    seed: int,
    jobs: int,
    say: Callable[[str], None] = _silent,
) -> dict[str, Any]:
    """Simulate, run and judge a slice, keep what there is to know of it, remove the rest.

    Parameters
    ----------
    folder : Path
        Of all slices.
    part : Slice
        The slice.
    profile : str
        Its profile.
    seed : int
        Seed of the simulation.
    jobs : int
        Worker processes.
    say : callable
        Told what begins.

    Returns
    -------
    dict
        The record: frames ``promised`` and ``accounted``, ``states`` of the frames (done, or a
        cause), ``stages`` (number done, CPU-s, MiB), ``seconds`` of simulation, run and judgement,
        ``bytes`` of the workspace at its largest, ``verdicts`` by case and ``exitCode``.  A slice
        that is done is not done again; one that was interrupted goes on where it stood.

    Raises
    ------
    InputError
        If a workspace cannot be used, or there is another slice under its name.
    """
    space = Workspace(folder / part.name)
    plan = {"profile": profile, "seed": seed, "visits": [*part.visits]}
    plan |= {"detectors": [*part.detectors]}
    path = space.root / RECORD
    if path.is_file():
        record = dict(json.loads(path.read_text(encoding="utf-8")))
        if record["plan"] != plan:
            raise ConfigError("holds another slice", path=space.root, hint="use another folder")
        _shrink(space)
        return record
    with heeded_termination():
        made = _processed(space, part, profile, seed, jobs, say)
    record = {"name": part.name, "plan": plan, **made}
    with translate_os_errors(space.root), atomic(path) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _shrink(space)
    return record


def _processed(
    space: Workspace, part: Slice, profile: str, seed: int, jobs: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Make, run and judge a workspace; what each leaves in memory ends with its process."""
    if not space.config.is_file():
        camera = sims.profiles()[profile].camera
        campaign = Campaign(name=part.name, profile=profile, camera=camera, seed=seed)
        Settings(campaign=campaign).save(Workspace.create(space.root).config)
    made: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    steps = (
        ("simulate", _simulate, (space, part, profile, seed, jobs)),
        ("run", _run, (space, jobs)),
        ("verify", _judge, (space, jobs)),
    )
    for name, step, arguments in steps:
        say(f"{part.name}: {name}")
        began = time.monotonic()
        with running_pool(1) as pool:
            made |= pool.submit(step, *arguments).result()
        seconds[name] = time.monotonic() - began
    size = sum(p.stat().st_size for p in space.root.rglob("*") if p.is_file())
    return {**_ledger(space, part), "seconds": seconds, "bytes": size, **made}


def _simulate(space: Workspace, part: Slice, profile: str, seed: int, jobs: int) -> dict[str, Any]:
    with space.changing("slices"), translate_os_errors(space.root):
        sims.simulate(
            space.root, profile, seed=seed, jobs=jobs, visits=part.visits, detectors=part.detectors
        )
    return {}


def _run(space: Workspace, jobs: int) -> dict[str, Any]:
    pin(space)
    run_campaign(space.root, jobs=jobs, quiet=True)
    return {}


def _judge(space: Workspace, jobs: int) -> dict[str, Any]:
    report = judge_workspace(space.root, jobs=jobs).report
    verdicts = {case["id"]: case["verdict"] for case in report["cases"]}
    return {"verdicts": verdicts, "exitCode": report["exit_code"]}


def _ledger(space: Workspace, part: Slice) -> dict[str, Any]:
    """Account for every frame of a slice, and for what it cost."""
    with Catalog(space.catalog, read_only=True) as catalog:
        known = {(visit, detector) for visit, detector in catalog.fetch(_KNOWN)}
        return {
            "promised": len(part.units),
            "accounted": len(part.units & known),
            "states": dict(catalog.fetch(_STATES)),
            "stages": catalog.rows(_COSTS),
        }


def _shrink(space: Workspace) -> None:
    """Remove what is large and can be made again."""
    with translate_os_errors(space.root):
        for name in _LARGE:
            shutil.rmtree(space.root / name, ignore_errors=True)
