import copy
import json
import xml.etree.ElementTree as ElementTree

import pytest

from harness.report import diff_reports, load_report, render_all, render_diff, write_report
from harness.report.html import render_html
from harness.report.junit import render_junit
from harness.report.model import build
from harness.verify.engine import judge_cases
from harness.verify.expected import Expected, compare
from harness.verify.loader import load_spec
from harness.verify.paths import TESTCASES
from harness.verify.pin import changes, pin, tampering
from pipeline.errors import InputError


@pytest.fixture
def spec():
    return load_spec()


@pytest.fixture
def judged(context, spec):
    """Verdicts on the parts of the specification that the small workspace can answer."""
    pin(context.space)
    paths = ["AG-00-05/visit-images", "AG-00-25/unique", "AG-00-25/counts", "AG-00-00/tests"]
    return judge_cases(spec, context, only=paths)


@pytest.fixture
def report(judged, context, spec):
    made = build("camp-001", spec, context, judged)
    return json.loads(json.dumps(made, allow_nan=False))


@pytest.fixture
def folder(report, context):
    path = context.space.root / "reports" / "camp-001"
    write_report(report, path, TESTCASES)
    return path


def test_shape(report):
    assert report["schema"] == "nightjar-report/1"
    assert report["exit_code"] in (0, 1, 3, 4)
    for case in report["cases"]:
        assert {"id", "title", "verdict", "comment", "items"} <= case.keys()
        for item in case["items"]:
            assert {"id", "text", "requirements", "verdict", "checks"} <= item.keys()
            for check in item["checks"]:
                assert {
                    "id", "kind", "verdict", "value", "unit", "bound", "population", "nulls",
                    "nans", "allow_empty", "waiver", "evidence",
                } <= check.keys()  # fmt: skip
                assert check["population"] is None or isinstance(check["population"], int)


def test_rendering_again_gives_the_same_bytes(folder):
    names = ("report.html", "report.md", "junit.xml")
    before = {n: (folder / n).read_bytes() for n in names}
    render_all(folder)

    assert {n: (folder / n).read_bytes() for n in names} == before


def test_html_stands_alone_and_holds_every_check(folder, report):
    html = (folder / "report.html").read_text()

    assert "http://" not in html
    assert "https://" not in html
    assert "<script" not in html
    for case in report["cases"]:
        for item in case["items"]:
            for check in item["checks"]:
                assert f'id="{case["id"]}/{item["id"]}/{check["id"]}"' in html


def test_html_follows_the_order_of_dmtr_53(folder):
    html = (folder / "report.html").read_text()
    headings = ["1 Introduction", "2 Test configuration", "3 Personnel", "4 Overview of the test",
                "5 Detailed", "6 Deviations", "A Requirements"]  # fmt: skip
    body = html[html.index("</nav>") :]
    places = [body.index(f">{h}") for h in headings]

    assert places == sorted(places)


def test_the_newest_report_is_the_latest(folder):
    latest = folder.parent / "latest"

    assert latest.resolve() == folder.resolve()
    assert (latest / "cases" / "ag-00-10.yaml").is_file()


def test_junit(report):
    root = ElementTree.fromstring(render_junit(report))
    cases = list(root.iter("testcase"))
    checks = [k for c in report["cases"] for i in c["items"] for k in i["checks"]]

    assert len(cases) == len(checks)
    assert len(list(root.iter("failure"))) == sum(k["verdict"] == "fail" for k in checks)
    assert all(c.find("properties") is not None for c in cases)


def test_markdown(folder):
    text = (folder / "report.md").read_text()

    assert "| AG-00-05 |" in text
    assert "| DMS-REQ-0069 |" in text


def test_requirements_know_their_items(report):
    rows = {r["id"]: r for r in report["requirements"]}

    assert rows["DMS-REQ-0069"]["status"] == "FullyVerified"
    assert rows["DMS-REQ-0030"]["status"] == "NotCovered"
    assert rows["DMS-REQ-0042"]["status"] == "Deferred"


def test_a_flipped_verdict_shows_in_the_difference(report):
    other = copy.deepcopy(report)
    check = other["cases"][-1]["items"][0]["checks"][0]
    check["verdict"], check["value"] = "fail", 7

    diff = diff_reports(report, other)

    assert [f["after"] for f in diff["flips"]] == ["fail"]
    assert "fail" in render_diff(diff)
    assert render_diff(diff_reports(report, report)).endswith("changed.\n")


def test_a_changed_criterion_is_listed(spec):
    path = next(iter(spec.criteria))
    before = {**spec.criteria, path: spec.criteria[path].replace("must", "info")}
    del before[list(spec.criteria)[3]]

    assert {c.path for c in changes(before, spec)} == {path, list(spec.criteria)[3]}


def test_pinning_happens_once(context):
    first = pin(context.space)

    assert pin(context.space, late=True) == first
    assert first["late"] is False


def test_expected_verdicts(report):
    verdicts = {c["id"]: c["verdict"] for c in report["cases"]}
    profile = report["environment"]["profile"]

    def expectation(**changed):
        content = {"schema": 1, "profiles": {profile: {**verdicts, **changed}},
                   "rises_with_evidence": ["AG-00-00"]}  # fmt: skip
        return Expected.model_validate(content)

    assert compare(report, expectation()) == []
    assert compare(report, expectation(**{"AG-00-05": "fail"})) == [
        f"AG-00-05: {verdicts['AG-00-05']} instead of fail"
    ]
    assert compare(report, Expected.model_validate({"schema": 1, "profiles": {}})) == [
        f"no verdicts are expected of the profile '{profile}'"
    ]


def test_expected_yaml_can_be_read():
    assert Expected.load().rises_with_evidence == ["AG-00-00"]


def test_what_is_no_report_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")

    with pytest.raises(InputError, match=r"is no report; expected a report\.json"):
        load_report(path)


def test_html_draws_and_escapes_what_the_report_holds(report, folder):
    figure = {
        "type": "points", "x": {"label": "x"}, "y": {"label": "<y>"},
        "series": [{"name": "<script>", "points": [[1.0, 2.0]]}],
    }  # fmt: skip
    report["figures"] = [{"title": "<script>alert(1)</script>", "kind": "figure", "data": figure}]
    html = render_html(report, folder)

    assert "<script" not in html
    assert html.count("data:image/svg+xml;base64,") == 1
    assert 'alt="&lt;script&gt;alert(1)&lt;/script&gt;: &lt;y&gt; against x"' in html


@pytest.fixture
def run_under_a_pin(space):
    """A campaign whose catalogue knows the specification that its run was started under."""
    from harness.catalog import Catalog
    from harness.system.hashes import file_hash

    pin(space)
    row = {"runId": "camp-1", "specHash": file_hash(space.specification)}
    with Catalog(space.catalog) as catalog:
        catalog.record("run", row, runId="camp-1")
    return space


def test_an_untouched_pin_is_no_change(run_under_a_pin, context):
    assert tampering(context) == []


@pytest.mark.parametrize("deed", ["deleted", "edited", "made anew"])
def test_a_pin_that_is_not_that_of_the_run_is_named(run_under_a_pin, context, spec, deed):
    path = run_under_a_pin.specification
    before = path.read_text()
    path.unlink()
    if deed == "edited":
        path.write_text(before.replace("= 0 files", "<= 9 files", 1))
    elif deed == "made anew":
        pin(run_under_a_pin, late=True)

    rows = build("camp-001", spec, context, [])["changed_criteria"]

    assert rows[0]["path"] == "specification.json of run camp-1"
    assert rows[0]["before"] != rows[0]["after"]


def test_a_damaged_pin_is_as_good_as_none(run_under_a_pin, context, spec):
    run_under_a_pin.specification.write_text("[]")

    report = build("camp-001", spec, context, [])

    assert report["pinned"]["hash"] is None
    assert report["changed_criteria"][0]["path"] == "specification.json of run camp-1"
