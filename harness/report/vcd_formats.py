"""The verification control document as HTML, CSV, in the columns of docsteady, and as ReqIF."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from xml.etree import ElementTree

from harness.report.html import environment, style
from harness.report.vcd import Nonconformance, Row, Seen, Vcd
from harness.system.text import in_cell

__all__ = ["FORMATS"]

_STATUS = {
    "pass": "Passed",
    "deviation": "Conditionally Passed",
    "partial": "Conditionally Passed",
    "fail": "Failed",
    "error": "Failed",
}
"""Results in the words of docsteady; anything else was not executed."""
_NAMESPACE = "http://www.omg.org/spec/ReqIF/20110401/reqif.xsd"
_REQUIREMENT = {
    "ReqIF.ForeignID": "requirement",
    "ReqIF.Name": "title",
    "Source": "source",
    "Level": "level",
    "Method": "method",
    "Priority": "priority",
    "Close-out": "close_out",
    "Remark": "remark",
}
_RESULT = {
    "ReqIF.Name": "item",
    "Case": "case",
    "Campaign": "campaign",
    "Report": "report",
    "Date": "utc",
    "Commit": "commit",
    "Result": "result",
    "Deviation": "deviation",
    "Nonconformance": "nonconformance",
}


def render_csv(vcd: Vcd) -> str:
    """One line per row, then, after an empty line, the nonconformances."""
    first = _table((f.name for f in fields(Row)), (asdict(r).values() for r in vcd.rows))
    if not vcd.nonconformances:
        return first
    described = [describe(n) for n in vcd.nonconformances]
    return f"{first}\n{_table(described[0], (d.values() for d in described))}"


def render_docsteady(vcd: Vcd) -> str:
    """Write the five columns of the table that docsteady makes of Jira, in its words."""
    names = ("Requirement", "Verification Element", "Test Case", "Last Run", "Test Status")
    rows = (
        (
            r.requirement,
            f"{r.requirement}: {r.title}",
            f"{r.case}/{r.item}" if r.case else "",
            f"{r.utc[:10]} {r.report}".strip(),
            _STATUS.get(r.result, "Not Executed"),
        )
        for r in vcd.rows
    )
    return _table(names, rows)


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([in_cell(str(value)) for value in row] for row in rows)
    return text.getvalue()


def describe(one: Nonconformance) -> dict[str, str]:
    """Return the columns of a nonconformance."""
    return {
        "nonconformance": one.name,
        "check": one.check,
        "requirements": " ".join(one.requirements),
        "shows": one.text,
        "bound": one.bound,
        "state": one.state,
        "verdict": one.verdict,
        "reason": one.reason,
        "first seen": _said(one.first),
        "first commit": one.first.commit,
        "last seen": _said(one.last),
        "last commit": one.last.commit,
        "closed": _said(one.closed) if one.closed else "",
        "closing commit": one.closed.commit if one.closed else "",
    }


def _said(seen: Seen) -> str:
    return f"{seen.utc[:10]} {seen.report}"


def render_html(vcd: Vcd) -> str:
    """Make one page that needs no network."""
    return (
        environment()
        .get_template("vcd.html.j2")
        .render(vcd=vcd, style=style(), described=[describe(n) for n in vcd.nonconformances])
    )


def render_reqif(vcd: Vcd) -> str:
    """Write ReqIF 1.2: requirements and results as objects, joined by relations "verified by"."""
    newest = max((c.utc for c in vcd.campaigns), default="1970-01-01T00:00:00+00:00")
    root = ElementTree.Element("REQ-IF", {"xmlns": _NAMESPACE})
    header = _below(_below(root, "THE-HEADER"), "REQ-IF-HEADER", IDENTIFIER="nightjar-vcd")
    for tag, text in (
        ("CREATION-TIME", newest),
        ("REQ-IF-TOOL-ID", "nightjar"),
        ("REQ-IF-VERSION", "1.0"),
        ("SOURCE-TOOL-ID", "nightjar"),
        ("TITLE", "Verification control document"),
    ):
        _below(header, tag).text = text
    content = _below(_below(root, "CORE-CONTENT"), "REQ-IF-CONTENT")
    described = {"IDENTIFIER": "text", "LAST-CHANGE": newest, "MAX-LENGTH": "32000"}
    _below(_below(content, "DATATYPES"), "DATATYPE-DEFINITION-STRING", **described)
    types = _below(content, "SPEC-TYPES")
    _type(types, "SPEC-OBJECT-TYPE", "requirement", _REQUIREMENT, newest)
    _type(types, "SPEC-OBJECT-TYPE", "result", _RESULT, newest)
    _type(types, "SPEC-RELATION-TYPE", "verified-by", {}, newest)
    _type(types, "SPECIFICATION-TYPE", "document", {}, newest)
    _objects(content, vcd.rows, newest)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


def _below(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)


def _type(
    types: ElementTree.Element, tag: str, name: str, columns: Mapping[str, str], date: str
) -> None:
    """Declare a type and its attributes, all of them text."""
    one = _below(types, tag, IDENTIFIER=name, **{"LAST-CHANGE": date, "LONG-NAME": name})
    attributes = _below(one, "SPEC-ATTRIBUTES") if columns else one
    for title, column in columns.items():
        described = {"IDENTIFIER": f"{name}.{column}", "LAST-CHANGE": date, "LONG-NAME": title}
        attribute = _below(attributes, "ATTRIBUTE-DEFINITION-STRING", **described)
        _below(_below(attribute, "TYPE"), "DATATYPE-DEFINITION-STRING-REF").text = "text"


def _objects(content: ElementTree.Element, rows: Sequence[Row], date: str) -> None:
    """Write every requirement once, every result, what joins them, and their order."""
    objects = _below(content, "SPEC-OBJECTS")
    relations = _below(content, "SPEC-RELATIONS")
    specifications = _below(content, "SPECIFICATIONS")
    document = _below(specifications, "SPECIFICATION", IDENTIFIER="vcd", **{"LAST-CHANGE": date})
    _reference(document, "TYPE", "SPECIFICATION-TYPE-REF", "document")
    children = _below(document, "CHILDREN")
    written: set[str] = set()
    for number, row in enumerate(rows):
        if row.requirement not in written:
            written.add(row.requirement)
            _object(objects, row.requirement, "requirement", _REQUIREMENT, row, date)
            place = {"IDENTIFIER": f"at-{row.requirement}", "LAST-CHANGE": date}
            hierarchy = _below(children, "SPEC-HIERARCHY", **place)
            _reference(hierarchy, "OBJECT", "SPEC-OBJECT-REF", row.requirement)
        if row.case:
            _object(objects, f"result-{number}", "result", _RESULT, row, date)
            joined = {"IDENTIFIER": f"relation-{number}", "LAST-CHANGE": date}
            relation = _below(relations, "SPEC-RELATION", **joined)
            _reference(relation, "TYPE", "SPEC-RELATION-TYPE-REF", "verified-by")
            _reference(relation, "SOURCE", "SPEC-OBJECT-REF", row.requirement)
            _reference(relation, "TARGET", "SPEC-OBJECT-REF", f"result-{number}")


def _object(
    objects: ElementTree.Element,
    name: str,
    kind: str,
    columns: Mapping[str, str],
    row: Row,
    date: str,
) -> None:
    one = _below(objects, "SPEC-OBJECT", IDENTIFIER=name, **{"LAST-CHANGE": date})
    _reference(one, "TYPE", "SPEC-OBJECT-TYPE-REF", kind)
    values = _below(one, "VALUES")
    for column in columns.values():
        value = _below(values, "ATTRIBUTE-VALUE-STRING", **{"THE-VALUE": getattr(row, column)})
        _reference(value, "DEFINITION", "ATTRIBUTE-DEFINITION-STRING-REF", f"{kind}.{column}")


def _reference(parent: ElementTree.Element, role: str, tag: str, name: str) -> None:
    _below(_below(parent, role), tag).text = name


FORMATS: dict[str, Callable[[Vcd], str]] = {
    "html": render_html,
    "csv": render_csv,
    "docsteady": render_docsteady,
    "reqif": render_reqif,
}
"""How the document can be written."""
