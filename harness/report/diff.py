"""What changed between two reports: flipped verdicts, drifting values, changed criteria."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_table", "compare_checks", "diff_reports", "render_diff"]

_DRIFT = 0.02


def check_table(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every check of a report by its path ``case/item/check``.

    Parameters
    ----------
    report : mapping
        A ``report.json``.

    Returns
    -------
    dict
        Checks by path.
    """
    return {
        f"{case['id']}/{item['id']}/{check['id']}": check
        for case in report["cases"]
        for item in case["items"]
        for check in item["checks"]
    }


def compare_checks(
    before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Compare the checks of two reports.

    Parameters
    ----------
    before, after : mapping
        Made by `check_table`.

    Returns
    -------
    dict
        ``flips`` (verdict changed, appeared or vanished) and ``drifts`` (same verdict, value
        changed by more than 2 %).
    """
    flips, drifts = [], []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path, {}), after.get(path, {})
        if old.get("verdict") != new.get("verdict"):
            flips.append(
                {
                    "path": path,
                    "before": old.get("verdict"),
                    "after": new.get("verdict"),
                    "values": [old.get("value"), new.get("value")],
                }
            )
        elif _drifted(old.get("value"), new.get("value")):
            drifts.append(
                {"path": path, "before": old["value"], "after": new["value"], "unit": new["unit"]}
            )
    return {"flips": flips, "drifts": drifts}


def _drifted(a: object, b: object) -> bool:
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return bool(a != b)
    return bool(abs(a - b) > _DRIFT * max(abs(a), abs(b)))


def diff_reports(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two reports as a whole.

    Parameters
    ----------
    a, b : mapping
        Two ``report.json``, the earlier first.

    Returns
    -------
    dict
        What appeared, vanished and changed.
    """
    old, new = dict(a.get("criteria", {})), dict(b.get("criteria", {}))
    return {
        "before": a["campaign"],
        "after": b["campaign"],
        "cases": [
            {"id": i, "before": x, "after": y}
            for i in sorted({c["id"] for c in (*a["cases"], *b["cases"])})
            if (x := _verdict(a, i)) != (y := _verdict(b, i))
        ],
        "criteria": [p for p in sorted(old.keys() | new.keys()) if old.get(p) != new.get(p)],
        **compare_checks(check_table(a), check_table(b)),
    }


def _verdict(report: Mapping[str, Any], case: str) -> str | None:
    return next((c["verdict"] for c in report["cases"] if c["id"] == case), None)


def render_diff(diff: Mapping[str, Any]) -> str:
    """Write a difference as Markdown, fit for a comment on a change.

    Parameters
    ----------
    diff : mapping
        Result of `diff_reports`.

    Returns
    -------
    str
        Markdown.
    """
    lines = [f"## {diff['before']} → {diff['after']}", ""]
    lines += [f"* **{c['id']}**: {c['before']} → {c['after']}" for c in diff["cases"]]
    if diff["flips"]:
        lines += ["", "| check | before | after | value |", "|---|---|---|---|"]
        lines += [
            f"| {f['path']} | {f['before']} | {f['after']} "
            f"| {_show(f['values'][0])} → {_show(f['values'][1])} |"
            for f in diff["flips"]
        ]
    if diff["drifts"]:
        lines += ["", "| value that moved | before | after | unit |", "|---|---|---|---|"]
        lines += [
            f"| {d['path']} | {_show(d['before'])} | {_show(d['after'])} | {d['unit']} |"
            for d in diff["drifts"]
        ]
    if diff["criteria"]:
        lines += ["", "Criteria that changed: " + ", ".join(diff["criteria"])]
    if len(lines) == 2:
        lines.append("No verdict, value or criterion changed.")
    return "\n".join(lines) + "\n"


def _show(value: object) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
