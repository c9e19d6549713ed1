"""One invocation of a campaign: open everything, run, record how it ended."""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

from harness.campaign.budget import TimeBudget
from harness.campaign.campaign import Campaign, Summary
from harness.campaign.chain import last_link
from harness.campaign.context import Context
from harness.campaign.faults import verify_faults
from harness.campaign.state import RunState
from harness.catalog import Catalog
from harness.execute import open_executor
from harness.ledger import now_mjd_tai
from harness.plan import Selection
from harness.settings import Settings
from harness.system.dates import mjd_of
from harness.system.hashes import combine, file_hash
from harness.system.log import Logbook
from harness.system.processes import Terminated, heeded_termination
from harness.system.progress import open_progress
from harness.system.software import software_version
from harness.system.threads import one_thread
from harness.workspace import Workspace, translate_os_errors
from pipeline.config import config_hash

__all__ = ["run_campaign", "selection"]

_EVERYTHING = Selection()
_KEPT = ("startedMjdTai", "specHash", "previousHash", "coordinatorCpuS")
_LIBRARIES = ("numpy", "scipy", "astropy", "numba", "pyarrow", "duckdb", "sep", "scikit-learn")


def selection(
    visits: Sequence[int] | None,
    detectors: Sequence[int] | None,
    since: str | None,
    until: str | None,
) -> Selection:
    """Make a selection from the words of a command line.

    Parameters
    ----------
    visits, detectors : sequence of int, optional
        Numbers to keep; all by default.
    since, until : str, optional
        Dates ``YYYY-MM-DD[THH:MM:SS]`` (UTC) or MJD.

    Returns
    -------
    Selection
        Which units take part.

    Raises
    ------
    ConfigError
        If a date is neither ``YYYY-MM-DD[THH:MM:SS]`` nor an MJD.
    """
    return Selection(
        visits=frozenset(visits or ()),
        detectors=frozenset(detectors or ()),
        since=mjd_of(since) if since is not None else math.nan,
        until=mjd_of(until, end=True) if until is not None else math.nan,
    )


def run_campaign(
    root: Path,
    *,
    selection: Selection = _EVERYTHING,
    jobs: int | None = None,
    overrides: Sequence[str] = (),
    retry: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    time_limit_s: float | None = None,
) -> Summary:
    """Run the pipeline over a workspace.

    Parameters
    ----------
    root : Path
        The workspace.
    selection : Selection
        Science units meant; everything by default.
    jobs : int, optional
        Worker processes, instead of what the configuration says.
    overrides : sequence of str
        ``section.key=value`` in place of the file's.
    retry : bool
        Whether known failures are tried again.
    dry_run : bool
        Whether only to say what would be done.
    quiet : bool
        Whether to show no progress.
    time_limit_s : float, optional, s
        Nothing is begun that would not end within this time; any time by default.

    Returns
    -------
    Summary
        Counts, troubles, reasons.

    Raises
    ------
    InputError
        If the workspace, its configuration or its catalogue cannot be used.
    """
    began_s = time.process_time()
    verify_faults()
    budget = TimeBudget(time_limit_s)
    space = Workspace.open(root)
    settings = Settings.load(space.config, overrides)
    software = software_version()
    run_id = f"{settings.campaign.name}-{combine([config_hash(settings), software])[:12]}"
    cards = {"SOFTVER": software, "RUNID": run_id}
    with ExitStack() as stack:
        stack.enter_context(heeded_termination())
        stack.enter_context(one_thread())
        stack.enter_context(translate_os_errors(root))
        if not dry_run:
            stack.enter_context(space.changing("run"))
        catalog = stack.enter_context(_catalog(space, dry_run=dry_run))
        state = RunState(space, settings, catalog, run_id)
        context = Context(state, selection, cards, performing=not dry_run)
        display = stack.enter_context(open_progress(quiet=quiet))
        if dry_run:
            return Campaign(context, None, display).run()
        from harness.execute.compilation import compile_loops  # with all stages

        compile_loops(display.say)
        workers = open_executor(settings.execution, jobs, space.queue, display.say)
        logbook = stack.enter_context(Logbook(space.logs / f"{_stamp()}-run.jsonl", run=run_id))
        executor = stack.enter_context(workers)
        campaign = Campaign(context, executor, display, logbook, retry=retry, budget=budget)
        return _recorded(campaign, catalog, logbook, settings, began_s)


def _recorded(
    campaign: Campaign, catalog: Catalog, logbook: Logbook, settings: Settings, began_s: float
) -> Summary:
    """Run, and record in the table ``run`` how it ended and what that cost, whatever happens."""
    row = _run_row(campaign, settings, logbook)
    with catalog.transaction():
        catalog.record("run", row, runId=row["runId"])
    logbook.note("info", "run started", {"run": row["runId"]})
    status, code = "interrupted", 130
    try:
        summary = campaign.run()
        status, code = ("failed" if summary.troubles else "done"), summary.exit_code
        if summary.stopped:
            status = "stopped"
    except Terminated as err:
        code = err.exit_code
        raise
    finally:
        logbook.note("info", f"run {status}", {"exit_code": code})
        row |= _ending(campaign.summary, status, code)
        books_s = time.process_time() - began_s - campaign.local_cpu_s
        row["coordinatorCpuS"] = books_s + float(str(row["coordinatorCpuS"] or 0.0))
        row["fileHashes"] = _hashed(campaign.context.space, str(row["fileHashes"]))
        with catalog.transaction():
            catalog.record("run", row, runId=row["runId"])
        campaign.state.hashes.save()
    catalog.checkpoint()
    return summary


def _run_row(campaign: Campaign, settings: Settings, logbook: Logbook) -> dict[str, object]:
    packages = {p: metadata.version(p) for p in _LIBRARIES}
    cards, space = campaign.context.cards, campaign.context.space
    software, run_id = cards["SOFTVER"], cards["RUNID"]
    catalog = campaign.state.catalog
    known = catalog.rows("SELECT * FROM run WHERE runId = ?", [run_id])
    first = known[0] if known else _first_row(space, catalog)
    kept = (logbook.path, space.run_config(run_id))
    files = json.loads(str(first["fileHashes"] or "{}")) | {space.relative(p): None for p in kept}
    return {
        **{n: first[n] for n in _KEPT},
        "runId": run_id,
        "command": " ".join(["nightjar", *sys.argv[1:]]),
        "status": "running",
        "softwareVersion": software,
        "commitId": software.partition("+g")[2] or None,
        "configHash": config_hash(settings),
        "seed": settings.campaign.seed,
        "host": platform.node(),
        "python": platform.python_version(),
        "packages": json.dumps(packages, sort_keys=True),
        "fileHashes": json.dumps(files, sort_keys=True),
    }


def _first_row(space: Workspace, catalog: Catalog) -> dict[str, object]:
    """Make what the record of a run keeps for good: later records hold its hash."""
    pin = space.specification
    return {
        "startedMjdTai": now_mjd_tai(),
        "specHash": file_hash(pin) if pin.is_file() else None,
        "previousHash": last_link(catalog),
        "fileHashes": None,
        "coordinatorCpuS": None,
    }


def _hashed(space: Workspace, files: str) -> str:
    """Fill in the hashes of the files of an invocation that has ended."""
    known = json.loads(files)
    present = {n: space.resolve(n) for n, h in known.items() if h is None}
    known |= {n: file_hash(p) for n, p in present.items() if p.is_file()}
    return json.dumps(known, sort_keys=True)


def _ending(summary: Summary, status: str, code: int) -> dict[str, object]:
    total: dict[str, int] = {}
    for counts in summary.counts.values():
        for name, n in counts.items():
            total[name] = total.get(name, 0) + n
    return {
        "endedMjdTai": now_mjd_tai(),
        "status": status,
        "exitCode": code,
        "nUnits": sum(total.values()),
        "nDone": total.get("done", 0),
        "nFailed": total.get("failed", 0) + total.get("blocked", 0),
        "nSkipped": total.get("cached", 0),
    }


def _catalog(space: Workspace, *, dry_run: bool) -> Catalog:
    if dry_run and not space.catalog.exists():
        return Catalog(Path(":memory:"))
    return Catalog(space.catalog, read_only=dry_run)


def _stamp() -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime())
