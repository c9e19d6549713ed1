"""The report as Markdown: the summary and every check in tables."""

from __future__ import annotations

from typing import Any

from harness.report.text import label, number, quantity, shape

__all__ = ["render_markdown"]


def render_markdown(report: dict[str, Any]) -> str:
    """Write a report as Markdown.

    Parameters
    ----------
    report : dict
        The report.

    Returns
    -------
    str
        Markdown.
    """
    environment, data = report["environment"], report["input"]
    lines = [
        f"# Test report: {report['campaign']}",
        "",
        f"{environment['software']} on {environment['platform']}, {data['visits']} visits × "
        f"{data['detectors']} detectors ({data['of_reference_campaign']}), judged {report['utc']}, "
        f"specification `{report['spec_hash'][:16]}`.",
        "",
        "| case | verdict | comment |",
        "|---|---|---|",
    ]
    lines += [
        f"| {c['id']} | {shape(c['verdict'])} {label(c['verdict'])} | {_cell(c['comment'])} |"
        for c in report["cases"]
    ]
    for case in report["cases"]:
        lines += ["", f"## {case['id']} {case['title']}", "", case["purpose"]]
        for item in case["items"]:
            lines += _item(item)
    lines += _requirements(report)
    return "\n".join(lines) + "\n"


def _item(item: dict[str, Any]) -> list[str]:
    numbers = ", ".join(item["requirements"])
    lines = [
        "",
        f"**{item['text']}** {shape(item['verdict'])} {label(item['verdict'])}"
        + (f" ({numbers})" if numbers else ""),
        "",
        "| check | verdict | value | bound | n | remark |",
        "|---|---|---|---|---|---|",
    ]
    for check in item["checks"]:
        remark = check["waiver"]["sentence"] if check["waiver"] else check["reason"]
        lines.append(
            f"| {_cell(check['text'])} | {shape(check['verdict'])} {label(check['verdict'])} | "
            f"{quantity(check)} | {check['bound']} | {number(check['population'])} | "
            f"{_cell(remark)} |"
        )
    return lines


def _requirements(report: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## Requirements",
        "",
        "| requirement | title | status | items |",
        "|---|---|---|---|",
    ]
    for row in report["requirements"]:
        items = ", ".join(i["path"] for i in row["items"])
        lines.append(f"| {row['id']} | {_cell(row['title'])} | {row['status']} | {items} |")
    return lines


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())
