"""The verification control document over several campaigns and times."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.cli.main import execute
from harness.report.vcd import control, histories
from harness.report.vcd_formats import FORMATS
from pipeline.errors import InputError

REQIF = "{http://www.omg.org/spec/ReqIF/20110401/reqif.xsd}"


def check(name: str, verdict: str, **more: Any) -> dict[str, Any]:
    """One check of a report, as far as the document reads it."""
    return {"id": name, "text": f"Shows {name}.", "bound": "= 0 rows", "verdict": verdict,
            "counts": True, "reason": f"because of {verdict}", "waiver": None, **more}  # fmt: skip


def report(campaign: str, number: int, verdicts: dict[str, str], day: str) -> dict[str, Any]:
    """A report of two requirements, one deferred, with one item of some checks."""
    about = {"priority": "1a", "method": "test", "source": "LSE-61", "reading": "", "deferred": ""}
    worst = next(v for v in ("fail", "deviation", "not_run", "pass") if v in verdicts.values())
    checks = [
        check(n, v, waiver={"id": "W-0001", "state": "applied"} if v == "deviation" else None)
        for n, v in verdicts.items()
    ]
    item = {"id": "one", "requirements": ["DMS-REQ-0001"], "verdict": worst, "checks": checks}
    return {
        "schema": "nightjar-report/3",
        "campaign": f"{campaign}-{number:03d}",
        "utc": f"{day}T00:00:00+00:00",
        "environment": {"workspace": campaign, "commit": f"c{day[-2:]}"},
        "waivers": [{"id": "W-0001", "ticket": "https://example.org/7"}],
        "requirements": [
            {"id": "DMS-REQ-0001", "title": "First", **about},
            {"id": "OSS-REQ-0002", "title": '=2"<b>', **about, "source": "LSE-30",
             "deferred": "needs a year"},
        ],
        "cases": [{"id": "AG-00-05", "version": "1.0.0", "items": [item]}],
    }  # fmt: skip


HISTORY = {
    "ci": [
        report("ci", 1, {"a": "pass", "b": "fail"}, "2026-01-02"),
        report("ci", 2, {"a": "fail", "b": "pass"}, "2026-01-04"),
    ],
    "mini": [
        report("mini", 1, {"a": "fail", "b": "pass"}, "2026-01-01"),
        report("mini", 2, {"a": "not_run", "b": "pass"}, "2026-01-03"),
        report("mini", 3, {"a": "pass", "b": "pass"}, "2026-01-05"),
    ],
}


def test_every_requirement_has_the_newest_result_of_every_campaign():
    rows = control(HISTORY).rows
    assert [(r.requirement, r.campaign, r.result) for r in rows] == [
        ("DMS-REQ-0001", "ci", "fail"),
        ("DMS-REQ-0001", "mini", "pass"),
        ("OSS-REQ-0002", "", ""),
    ]
    assert rows[0].nonconformance == "NC-0001"
    assert {r.close_out for r in rows} == {"open"}
    assert (rows[0].level, rows[2].level) == ("subsystem", "system")
    assert rows[2].remark == "needs a year"


def test_a_requirement_is_closed_by_passes_and_deviations_alone():
    good = {"mini": [report("mini", 1, {"a": "deviation", "b": "pass"}, "2026-02-01")]}
    (row, deferred) = control(good).rows
    assert row.close_out == "closed"
    assert row.deviation == "W-0001 (https://example.org/7)"
    assert deferred.close_out == "open"
    nothing = {"mini": [report("mini", 1, {"a": "not_run"}, "2026-02-01")]}
    assert control(nothing).rows[0].close_out == "open"


def test_nonconformances_have_their_first_and_last_commit_and_their_end():
    first, second = control(HISTORY).nonconformances
    assert (first.name, first.check) == ("NC-0001", "AG-00-05/one/a")
    assert (first.first.commit, first.last.commit) == ("c01", "c04")
    assert first.state == "open"  # mini passes, ci does not
    assert (second.name, second.state) == ("NC-0002", "closed")
    assert second.closed is not None
    assert second.closed.commit == "c04"


def test_not_run_closes_nothing_and_a_waiver_accepts():
    history = {"mini": HISTORY["mini"][:2]}
    assert control(history).nonconformances[0].state == "open"
    waived = report("mini", 3, {"a": "deviation", "b": "pass"}, "2026-01-06")
    assert control({"mini": [*history["mini"], waived]}).nonconformances[0].state == "accepted"


def test_informative_checks_are_no_nonconformances():
    one = copy.deepcopy(HISTORY["mini"][0])
    one["cases"][0]["items"][0]["checks"][0]["counts"] = False
    assert control({"mini": [one]}).nonconformances == []


def test_the_table_has_one_line_per_row_and_no_formula():
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](control(HISTORY)).split("\n\n")[0])))
    assert [r["result"] for r in rows] == ["fail", "pass", ""]
    assert rows[2]["title"] == "'=2\"<b>"


def test_the_columns_and_words_of_docsteady():
    rows = list(csv.reader(io.StringIO(FORMATS["docsteady"](control(HISTORY)))))
    assert rows[0] == ["Requirement", "Verification Element", "Test Case", "Last Run",
                       "Test Status"]  # fmt: skip
    assert [r[-1] for r in rows[1:]] == ["Failed", "Passed", "Not Executed"]
    assert rows[1][2:4] == ["AG-00-05 1.0.0/one", "2026-01-04 ci-002"]


def test_the_page_is_escaped():
    page = FORMATS["html"](control(HISTORY))
    assert "=2&#34;&lt;b&gt;" in page
    assert "NC-0002" in page
    assert "http" not in page.replace("https://example.org", "")


def test_every_reference_in_reqif_leads_somewhere():
    root = ElementTree.fromstring(FORMATS["reqif"](control(HISTORY)))
    names = [e.get("IDENTIFIER") for e in root.iter() if e.get("IDENTIFIER")]
    assert len(names) == len(set(names))
    references = {e.text for e in root.iter() if e.tag.endswith("-REF")}
    assert references <= set(names)
    relations = root.findall(f".//{REQIF}SPEC-RELATION")
    assert len(relations) == 2
    values = {v.get("THE-VALUE") for v in root.iter(f"{REQIF}ATTRIBUTE-VALUE-STRING")}
    assert {"DMS-REQ-0001", "NC-0001", "fail", "pass"} <= values


@pytest.fixture
def workspaces(tmp_path: Path) -> list[Path]:
    """Two workspaces with their reports."""
    for name, reports in HISTORY.items():
        for one in reports:
            folder = tmp_path / name / "reports" / one["campaign"]
            folder.mkdir(parents=True)
            (folder / "report.json").write_text(json.dumps(one), encoding="utf-8")
        (tmp_path / name / "reports" / "latest").symlink_to(reports[-1]["campaign"])
        (tmp_path / name / "reports" / f"{name}-009").mkdir()  # a judgement that was interrupted
    return [tmp_path / name for name in HISTORY]


def test_reports_are_found_in_workspaces_and_folders(workspaces: list[Path]):
    assert histories(workspaces) == HISTORY
    single = workspaces[1] / "reports" / "mini-002"
    assert histories([single, workspaces[1]]) == {"mini": HISTORY["mini"]}
    with pytest.raises(InputError, match="there is no report"):
        histories([workspaces[0] / "reports" / "ci-009"])


def test_numbers_are_kept_from_one_document_to_the_next(workspaces: list[Path], tmp_path: Path):
    register, output = tmp_path / "nc.json", tmp_path / "vcd.csv"
    words = ["--register", str(register), "--format", "csv", "--output", str(output)]
    assert execute(["report", "vcd", str(workspaces[0]), *words]) == 0
    assert json.loads(register.read_text())["numbers"] == {
        "AG-00-05/one/b": 1,
        "AG-00-05/one/a": 2,
    }
    assert execute(["report", "vcd", *map(str, workspaces), *words]) == 0
    assert "NC-0002" in output.read_text().splitlines()[1]
    register.write_text("[]")
    assert execute(["report", "vcd", str(workspaces[0]), *words]) == 2
    assert execute(["report", "vcd", str(workspaces[0]), "--format", "pdf"]) == 2
