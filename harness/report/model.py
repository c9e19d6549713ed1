"""The report as plain data: everything a rendering prints, and nothing that it must compute."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.report.chain import chain
from harness.report.diff import check_table, compare_checks
from harness.report.nights import nights
from harness.report.text import quantity
from harness.system.hashes import file_hash
from harness.system.software import software_version, tree_hash
from harness.verify.bounds import smallest_effect
from harness.verify.context import Context
from harness.verify.engine import CaseResult, CheckResult, ItemResult, Observation
from harness.verify.evidence import current_commit
from harness.verify.loader import Spec
from harness.verify.measurement import Evidence, Measurement
from harness.verify.model import Check
from harness.verify.pin import changes, pinned
from harness.verify.tampering import tampering
from harness.verify.verdict import Verdict, exit_code, worst

__all__ = ["SCHEMA", "build", "conclusions", "observer_of", "sheets_of"]

SCHEMA = "nightjar-report/3"

_PACKAGES = (
    "numpy",
    "scipy",
    "astropy",
    "galsim",
    "numba",
    "duckdb",
    "pyarrow",
    "fastavro",
    "scikit-learn",
)
_SHOWN = 50
_SHEET = "contact sheet"


def build(
    name: str,
    spec: Spec,
    context: Context,
    results: Sequence[CaseResult],
    *,
    previous: Mapping[str, Any] | None = None,
    sabotage: Mapping[str, Any] | None = None,
    replay: Mapping[str, Any] | None = None,
    figures: Sequence[Evidence] = (),
    sheets: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    simulation: Sequence[Evidence] = (),
) -> dict[str, Any]:
    """Describe a judged campaign.

    Parameters
    ----------
    name : str
        Name of the campaign; also of the folder of the report.
    spec : Spec
        What it was judged by.
    context : Context
        The campaign.
    results : sequence of CaseResult
        The verdicts.
    previous : mapping, optional
        The report of the campaign before, for what changed since.
    sabotage, replay : mapping, optional
        Detection matrix and replayed report, where they were made.
    figures : sequence of Evidence
        For the overview.
    sheets : mapping, optional
        Contact sheets by the path of their check.
    simulation : sequence of Evidence
        Statistics of the simulated frames, where they were kept.

    Returns
    -------
    dict
        JSON.
    """
    record = pinned(context.space) or {}
    concluded = conclusions(spec, results, sheets or {})
    return {
        "schema": SCHEMA,
        "campaign": name,
        "utc": context.now.isoformat(timespec="seconds"),
        "today": context.today.isoformat(),
        **concluded,
        "chain": chain(context, concluded),
        "pinned": {k: record.get(k) for k in ("hash", "utc", "late")},
        "changed_criteria": [
            asdict(c) for c in (*tampering(context), *changes(record.get("criteria", {}), spec))
        ],
        "environment": _environment(context),
        "input": _input(context),
        "people": context.settings.report.model_dump(),
        "figures": [_evidence(f) for f in figures],
        "nights": nights(context),
        "resources": _resources(context),
        "units": _units(context),
        "sabotage": dict(sabotage) if sabotage else None,
        "replay": dict(replay) if replay else None,
        "simulation": [_evidence(e) for e in simulation],
        "changes_since": _changes_since(previous, results, spec) if previous else None,
    }


_Sheets = Mapping[str, Sequence[Mapping[str, Any]]]


def conclusions(
    spec: Spec, results: Sequence[CaseResult], sheets: _Sheets | None = None
) -> dict[str, Any]:
    """Describe what follows from specification and measurements, and from nothing else.

    Parameters
    ----------
    spec : Spec
        What is demanded.
    results : sequence of CaseResult
        The verdicts.
    sheets : mapping, optional
        Contact sheets by the path of their check.

    Returns
    -------
    dict
        A part of the report, JSON.
    """
    return {
        "exit_code": exit_code(r.judged for r in results),
        "verdict": worst(r.judged for r in results).word,
        "spec_hash": spec.hash,
        "cases": [_case(r, sheets or {}) for r in results],
        "requirements": _requirements(spec, results),
        "waivers": [w.model_dump(mode="json") for w in spec.waivers],
        "recommendations": _recommendations(results),
        "deviations": _deviations(results),
        "criteria": spec.criteria,
    }


def observer_of(report: Mapping[str, Any]) -> Callable[[str, Check], Observation]:
    """Return a function that looks measurements up in a report instead of making them.

    Parameters
    ----------
    report : mapping
        A ``report.json``.

    Returns
    -------
    callable
        For `harness.verify.engine.conclude`.
    """
    table = check_table(report)
    absent = Observation("not_run", text="the report holds no measurement")
    return lambda path, _: _observation(table[path]) if path in table else absent


def sheets_of(report: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the contact sheets of a report, which were drawn beside the measurements.

    Parameters
    ----------
    report : mapping
        A ``report.json``.

    Returns
    -------
    dict of list of dict
        ``caption``, ``path`` and ``sha256`` of each image, by the path of the check.
    """
    return {
        path: evidence["data"]
        for path, check in check_table(report).items()
        for evidence in check["evidence"]
        if evidence["title"] == _SHEET
    }


def _observation(check: Mapping[str, Any]) -> Observation:
    seen = check["observed"]
    evidence = tuple(Evidence(**e) for e in check["evidence"] if e["title"] != _SHEET)
    got = None
    if seen["outcome"] == "measured":
        stderr = math.nan if seen["stderr_undefined"] else check["stderr"]
        value = math.nan if check["value"] is None else float(check["value"])
        got = Measurement(
            value,
            check["population"],
            stderr,
            check["nulls"],
            check["nans"],
            tuple(check["failing"]),
            evidence,
            seen["text"],
            seen.get("broken", ""),
        )
    return Observation(
        seen["outcome"],
        got,
        seen["text"],
        check["population"],
        check["n_failing"],
        check["seconds"],
    )


def _case(result: CaseResult, sheets: _Sheets) -> dict[str, Any]:
    case = result.case
    return {
        "id": case.id,
        "title": case.title,
        "version": case.version,
        "purpose": case.purpose,
        "derived_from": case.derived_from.model_dump(),
        "depends_on": list(case.depends_on),
        "verdict": result.verdict.word,
        "judged": result.judged.word,
        "comment": _comment(result),
        "items": [_item(i, sheets) for i in result.items],
    }


def _comment(result: CaseResult) -> str:
    """One line for the summary table: what keeps the case from a plain pass, and what informs."""
    checks = [c for i in result.items for c in i.checks]
    groups = [
        (words, [c for c in checks if c.verdict == verdict and c.counts])
        for verdict, words in (
            (Verdict.ERROR, "in error"),
            (Verdict.FAIL, "failed"),
            (Verdict.NOT_RUN, "not run"),
            (Verdict.PARTIAL, "partial"),
            (Verdict.DEVIATION, "with a waiver"),
        )
    ]
    fine = (Verdict.PASS, Verdict.NOT_APPLICABLE)
    idle = [c for c in checks if not c.counts and c.verdict not in fine]
    parts = [_named(found, words) for words, found in (*groups, ("for information", idle)) if found]
    passed, neutral = (sum(c.verdict == verdict for c in checks) for verdict in fine)
    parts.append(
        f"{passed} of {len(checks)} checks passed"
        + (f", {neutral} not applicable" if neutral else "")
    )
    return "; ".join(parts)


def _named(found: Sequence[CheckResult], words: str) -> str:
    names = ", ".join(c.path.split("/", 1)[1] for c in found[:3])
    return f"{len(found)} {words}: {names}" + (" …" if len(found) > 3 else "")


def _item(result: ItemResult, sheets: _Sheets) -> dict[str, Any]:
    return {
        "id": result.item.id,
        "text": result.item.text,
        "requirements": list(result.item.requirements),
        "verdict": result.verdict.word,
        "checks": [_check(c, sheets) for c in result.checks],
    }


def _check(result: CheckResult, sheets: _Sheets) -> dict[str, Any]:
    check, got, seen = result.check, result.measurement, result.observation
    evidence = list(got.evidence) if got else []
    shown = got.failing if got and result.waiver else got.failing[:_SHOWN] if got else ()
    undefined = bool(got and got.stderr is not None and not math.isfinite(got.stderr))
    if result.path in sheets:
        evidence.append(Evidence(_SHEET, "images", list(sheets[result.path])))
    return {
        "id": check.id,
        "text": check.text,
        "kind": check.subject.name,
        "severity": check.severity,
        "counts": result.counts,
        "absent": result.absent,
        "verdict": result.verdict.word,
        "value": _number(got.value) if got else None,
        "stderr": _number(got.stderr) if got and got.stderr is not None else None,
        "sees": _number(smallest_effect(got.stderr)) if got and got.stderr is not None else None,
        "unit": check.subject.unit,
        "bound": check.limit.text,
        "partial": check.partial or None,
        "population": result.population,
        "nulls": got.nulls if got else None,
        "nans": got.nans if got else None,
        "allow_empty": check.allow_empty or None,
        "waiver": result.waiver,
        "reason": result.reason,
        "observed": {
            "outcome": seen.outcome,
            "text": seen.text,
            "stderr_undefined": undefined,
            **({"broken": got.broken} if got and got.broken else {}),
        },
        "failing": [_subject(s) for s in shown],
        "n_failing": seen.n_failing,
        "parameters": check.subject.model_dump(mode="json", exclude_defaults=True),
        "seconds": round(seen.seconds, 3),
        "evidence": [_evidence(e) for e in evidence],
    }


def _subject(subject: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _number(v) if isinstance(v, float) else v for k, v in subject.items()}


def _number(value: float) -> float | int | None:
    """Finite numbers as they are, whole ones as integers; others have no place in JSON."""
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {"title": evidence.title, "kind": evidence.kind, "data": _clean(evidence.data)}


def _clean(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(k): _clean(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [_clean(v) for v in data]
    if isinstance(data, float):
        return _number(data)
    if hasattr(data, "item"):
        return _clean(data.item())
    return data


def _environment(context: Context) -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]
    lock = root / "requirements.lock"
    return {
        "profile": context.profile,
        "camera": context.camera_name,
        "workspace": context.space.root.name,
        "software": software_version(),
        "commit": current_commit(),
        "tree": tree_hash(),
        "lock": file_hash(lock) if lock.is_file() else None,
        "container": os.environ.get("NIGHTJAR_IMAGE"),
        "python": platform.python_version(),
        "packages": {p: _version(p) for p in _PACKAGES},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gib": _memory(),
        "command": " ".join(["nightjar", *sys.argv[1:]]),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def _memory() -> float | None:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    return round(pages * size / 2**30, 1)


def _input(context: Context) -> dict[str, Any]:
    space = context.space
    files = {
        "exposures": space.exposures,
        "frames": space.frames,
        "reference catalogue": space.refcat,
        "object catalogue": space.objects,
        "ephemerides": space.ephemerides,
        "orbits": space.orbits,
        "configuration": space.config,
    }
    return {
        "seed": context.settings.campaign.seed,
        "visits": len({u.visit for u in context.units}),
        "detectors": len({u.detector for u in context.units}),
        "units": len(context.units),
        "science_units": len(context.expected("difference")),
        "bands": sorted({u.band for u in context.units}),
        "fields": sorted({u.field for u in context.units}),
        "of_reference_campaign": f"{len(context.units)} of 4,956 visit × CCD units of LDM-533",
        "files": {n: {"sha256": file_hash(p)} for n, p in files.items() if p.is_file()},
    }


def _requirements(spec: Spec, results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    rows = []
    for requirement in spec.requirements:
        items = [
            (f"{r.case.id}/{i.item.id}", i.verdict)
            for r in results
            for i in r.items
            if requirement.id in i.item.requirements
        ]
        verdicts = [v for _, v in items]
        rows.append(
            {
                **requirement.model_dump(mode="json"),
                "items": [{"path": p, "verdict": v.word} for p, v in items],
                "status": _status(verdicts, bool(requirement.deferred)),
                "compliance": _compliance(verdicts),
                "close_out": "closed"
                if verdicts and worst(verdicts) <= Verdict.DEVIATION
                else "open",
            }
        )
    return rows


def _status(verdicts: Sequence[Verdict], deferred: bool) -> str:
    if not verdicts:
        return "Deferred" if deferred else "NotCovered"
    if any(v >= Verdict.FAIL for v in verdicts):
        return "WithFailures"
    good = [v for v in verdicts if v in (Verdict.PASS, Verdict.DEVIATION)]
    applicable = [v for v in verdicts if v != Verdict.NOT_APPLICABLE]
    if not good:
        return "NotVerified"
    return "FullyVerified" if len(good) == len(applicable) else "PartiallyVerified"


def _compliance(verdicts: Sequence[Verdict]) -> str:
    applicable = [v for v in verdicts if v not in (Verdict.NOT_APPLICABLE, Verdict.NOT_RUN)]
    if not applicable:
        return "–"
    return {Verdict.PASS: "yes", Verdict.DEVIATION: "yes", Verdict.PARTIAL: "partial"}.get(
        worst(applicable), "no"
    )


def _recommendations(results: Sequence[CaseResult]) -> list[dict[str, str]]:
    """Everything that is less than a pass, and every waiver that did not apply."""
    rows = []
    for check in (c for r in results for i in r.items for c in i.checks):
        if check.waiver and check.waiver["state"] != "unused":
            rows.append({"path": check.path, "text": check.waiver["sentence"]})
        elif check.counts and check.verdict in (Verdict.PARTIAL, Verdict.FAIL, Verdict.ERROR):
            rows.append({"path": check.path, "text": _finding(check)})
    return rows


def _finding(result: CheckResult) -> str:
    """Say what was found wrong, with its number: the check's own statement and the reason."""
    found = result.measurement
    number = "" if found is None else f" ({quantity(_check(result, {}))})"
    return f"{result.check.text.rstrip('.')}{number}: {result.reason}"


def _deviations(results: Sequence[CaseResult]) -> list[dict[str, str]]:
    """Where the procedure could not be followed: checks that were not made."""
    return [
        {"path": c.path, "text": c.reason}
        for r in results
        for i in r.items
        for c in i.checks
        if c.verdict == Verdict.NOT_RUN
    ]


def _resources(context: Context) -> list[dict[str, Any]]:
    if "unit" not in context.columns:
        return []
    rows = context.rows(
        "select stage, count(*) as units, count(*) filter (status <> 'done') as failed, "
        "avg(wallS) as wall_s, avg(cpuS) as cpu_s, max(cpuS) as cpu_s_max, "
        "max(peakRssMiB) as peak_rss_mib, sum(cpuS) as cpu_s_sum from unit group by stage"
    )
    order = {s: n for n, s in enumerate(_stages())}
    rows.sort(key=lambda r: (order.get(r["stage"], 99), r["stage"]))
    return [{k: _rounded(v) for k, v in r.items()} for r in rows]


def _stages() -> tuple[str, ...]:
    from harness.tasks import stages

    return stages()


def _rounded(value: Any) -> Any:
    return _number(round(value, 3)) if isinstance(value, float) else value


def _units(context: Context) -> list[dict[str, Any]]:
    """Failed and blocked units with their causes."""
    return [
        {k: r[k] for k in ("visit", "detector", "stage", "status", "cause", "message")}
        for r in context.causes.values()
    ]


def _changes_since(
    previous: Mapping[str, Any], results: Sequence[CaseResult], spec: Spec
) -> dict[str, Any]:
    before = check_table(previous)
    after = {c.path: _check(c, {}) for r in results for i in r.items for c in i.checks}
    return {
        "campaign": previous["campaign"],
        "criteria": [asdict(c) for c in changes(previous.get("criteria", {}), spec)],
        **compare_checks(before, after),
    }
