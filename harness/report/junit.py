"""The report as JUnit XML, for the tools that read nothing else."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from harness.report.text import quantity

__all__ = ["render_junit"]


def render_junit(report: dict[str, Any], *, partial_fails: bool = False) -> str:
    """Write a report as JUnit XML.

    Parameters
    ----------
    report : dict
        The report.
    partial_fails : bool
        Whether a partial pass counts as a failure.

    Returns
    -------
    str
        One test suite per case, one test case per check.
    """
    root = ElementTree.Element("testsuites", name=str(report["campaign"]))
    for case in report["cases"]:
        checks = [(i, c) for i in case["items"] for c in i["checks"]]
        words = [c["verdict"] for _, c in checks]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"{case['id']} {case['title']}",
            tests=str(len(checks)),
            failures=str(words.count("fail") + (words.count("partial") if partial_fails else 0)),
            errors=str(words.count("error")),
            skipped=str(words.count("not_run") + words.count("not_applicable")),
        )
        for item, check in checks:
            _add(suite, case, item, check, partial_fails)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _add(
    suite: ElementTree.Element,
    case: dict[str, Any],
    item: dict[str, Any],
    check: dict[str, Any],
    partial_fails: bool,
) -> None:
    node = ElementTree.SubElement(
        suite,
        "testcase",
        classname=f"{case['id']}.{item['id']}",
        name=check["id"],
        time=f"{check['seconds']:.3f}",
    )
    properties = ElementTree.SubElement(node, "properties")
    values = [("verdict", check["verdict"]), ("value", quantity(check)), ("bound", check["bound"])]
    values += [("requirement", r) for r in item["requirements"]]
    values += [("waiver", check["waiver"]["id"])] if check["waiver"] else []
    for name, value in values:
        ElementTree.SubElement(properties, "property", name=name, value=str(value))
    message = check["reason"] or f"{quantity(check)}, bound {check['bound']}"
    tag = {
        "fail": "failure",
        "error": "error",
        "not_run": "skipped",
        "not_applicable": "skipped",
    }.get(check["verdict"], "failure" if check["verdict"] == "partial" and partial_fails else "")
    if tag:
        ElementTree.SubElement(node, tag, message=message)
