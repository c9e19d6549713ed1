import base64
import copy
import hashlib
import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

from harness.report import diff_reports, load_report, render_all, render_diff, write_report
from harness.report.bundle import check_bundle, require_untouched
from harness.report.checksums import write_sums
from harness.report.crate import statement
from harness.report.html import render_html
from harness.report.junit import render_junit
from harness.report.model import build
from harness.report.signature import sign, signature_fault, signer
from harness.verify.engine import judge_cases
from harness.verify.expected import Expected, compare
from harness.verify.loader import load_spec
from harness.verify.paths import TESTCASES
from harness.verify.pin import changes, pin
from harness.verify.tampering import tampering
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
    assert report["schema"] == "nightjar-report/3"
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


BUNDLED = """\
schema: 1
id: AG-00-05
title: A case
version: 1.0.0
derived_from: {document: LDM-533, version: "1.1", section: x}
purpose: To be judged again.
items:
  - id: files
    text: Files.
    requirements: [DMS-REQ-0010]
    checks:
      - id: sound
        text: Damaged ones.
        files: {product: visit_image, count: damaged}
        bound: "= 0 files"
      - id: lost
        text: Fraction that is lost.
        severity: should
        files: {product: visit_image, count: lost}
        bound: "<= 0.01"
  - id: rows
    text: Rows.
    checks:
      - id: bright
        text: Sources of SNR above 10.
        sql:
          population: select snr from DiaSource
          rows: select visit from DiaSource where snr > 10
      - id: none
        text: Nothing to count.
        sql: {population: select snr from DiaSource where snr > 1e9, rows: select 1}
        allow_empty: there is none so bright
      - id: broken
        text: A question that cannot be asked.
        sql: {population: select nothing from DiaSource, rows: select 1}
      - id: half-year
        text: Not applicable.
        when: [half_year]
        log: {}
"""


@pytest.fixture
def cases(tmp_path):
    folder = tmp_path / "cases"
    (folder / "replay").mkdir(parents=True)
    (folder / "ag-00-05.yaml").write_text(BUNDLED)
    (folder / "replay" / "dmtr-53.yaml").write_text("schema: 1\n")
    (folder / "attributes.yaml").write_text("schema: 1\nmatrices: []\n")
    (folder / "requirements.yaml").write_text(
        "schema: 1\nrequirements:\n"
        "  - {id: DMS-REQ-0010, title: t, text: x, source: LSE-61, priority: 1b}\n"
    )
    (folder / "waivers.yaml").write_text(
        "schema: 1\nwaivers:\n  - {id: W-0001, check: AG-00-05/rows/bright, ticket: T-1, "
        'reason: because it is so, approved_by: me, approved_on: "2099-06-01", '
        'expires: "2099-12-01", no_worse_than: "<= 9 rows", scope: {visit: [2]}}\n'
    )
    return folder


@pytest.fixture
def bundle(context, cases, tmp_path):
    """A written report with a waived failure, an error and an image, moved elsewhere."""
    from harness.report.sheets import store_image

    pin(context.space, cases)
    spec = load_spec(cases)
    folder = tmp_path / "elsewhere" / "camp-001"
    (folder / "evidence").mkdir(parents=True)
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    image = {"caption": "a dot", **store_image(png, folder / "evidence")}
    sheets = {f"AG-00-05/{path}": [image] for path in ("files/sound", "rows/none", "rows/broken")}
    made = build("camp-001", spec, context, judge_cases(spec, context), sheets=sheets)
    made["figures"] = [{"title": "stamps", "kind": "images", "data": [image]}]
    write_report(json.loads(json.dumps(made)), folder, cases, context.space.specification)
    return folder


def test_a_bundle_is_judged_again_elsewhere(bundle):
    before = (bundle / "verdicts.json").read_bytes()

    assert check_bundle(bundle) == []
    assert (bundle / "cases" / "replay" / "dmtr-53.yaml").is_file()
    assert json.loads(before)["checks"] == {
        "AG-00-05/files/sound": "pass",
        "AG-00-05/files/lost": "pass",
        "AG-00-05/rows/bright": "deviation",
        "AG-00-05/rows/none": "not_applicable",
        "AG-00-05/rows/broken": "error",
        "AG-00-05/rows/half-year": "not_applicable",
    }


def test_an_edited_byte_anywhere_is_named(bundle):
    for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(changed)
            try:
                named = [f.split(":")[0] for f in check_quickly(bundle)]
            except InputError as err:
                named = [str(err)]
            path.write_bytes(whole)
            name = path.relative_to(bundle).as_posix()
            assert named, f"byte {place} of {name}"
            assert name == "SHA256SUMS" or any(name in n for n in named)


def graph_of(folder):
    content = json.loads((folder / "ro-crate-metadata.json").read_text())
    return {entity["@id"]: entity for entity in content["@graph"]}


def references(value):
    if isinstance(value, dict):
        if value.keys() == {"@id"}:
            yield value["@id"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_crate_describes_every_file(bundle):
    graph = graph_of(bundle)

    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    own = ("ro-crate-metadata.json", "SHA256SUMS")
    for path in (p for p in bundle.rglob("*") if p.is_file() and p.name not in own):
        entity = graph[path.relative_to(bundle).as_posix()]
        assert entity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entity["contentSize"] == str(path.stat().st_size)
        assert {"@id": entity["@id"]} in graph["./"]["hasPart"]
    assert {e["@type"] for e in graph.values()} >= {"Dataset", "File", "CreateAction"}
    outside = [r for r in references(list(graph.values())) if r not in graph]
    assert all(r.startswith(("https://", "http://")) for r in outside)


def test_the_statement_lists_every_check_that_was_judged(bundle):
    stated = json.loads((bundle / "test-result.json").read_text())
    predicate, report = stated["predicate"], load_report(bundle)

    assert stated["_type"] == "https://in-toto.io/Statement/v1"
    assert stated["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    catalogue = next(p["sha256"] for p in report["chain"] if p["of"] == "catalogue")
    assert stated["subject"] == [{"name": "catalog.duckdb", "digest": {"sha256": catalogue}}]
    assert predicate["result"] == "FAILED"
    assert predicate["passedTests"] == ["AG-00-05/files/sound", "AG-00-05/files/lost"]
    assert predicate["warnedTests"] == ["AG-00-05/rows/bright"]
    assert predicate["failedTests"] == ["AG-00-05/rows/broken"]
    for part in predicate["configuration"]:
        content = (bundle / part["name"]).read_bytes()
        assert part["digest"]["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("verdict", "result"),
    [("pass", "PASSED"), ("deviation", "WARNED"), ("partial", "WARNED"), ("not_run", "FAILED")],
)
def test_what_was_not_run_has_not_passed(bundle, verdict, result):
    report = load_report(bundle) | {"verdict": verdict}

    assert json.loads(statement(report, bundle))["predicate"]["result"] == result


@pytest.mark.parametrize("name", ["test-result.json", "ro-crate-metadata.json"])
def test_a_forged_statement_is_noticed_although_the_hashes_agree(bundle, name):
    path = bundle / name
    path.write_text(path.read_text().replace("FAILED", "PASSED").replace("camp-001", "camp-002"))
    write_sums(bundle)

    assert f"{name}: is not what follows from report.json and the files" in check_bundle(bundle)


@pytest.fixture
def key(tmp_path):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen on this machine")
    return new_key(tmp_path / "key")


def new_key(path):
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True
    )
    return path


def allowed(key, name="conductor@example.org"):
    public = key.with_suffix(".pub").read_text()
    (key.parent / "signers").write_text(f"{name} {public}")
    return key.parent / "signers"


def test_a_signature_stands_for_every_file(bundle, key, tmp_path):
    signers = allowed(key)
    assert check_bundle(bundle, signers) == ["SHA256SUMS.sig: is missing; the report is not signed"]

    sign(bundle, key)

    assert check_bundle(bundle) == check_bundle(bundle, signers) == []
    assert signer(bundle, signers).startswith("conductor@example.org, ED25519 key SHA256:")
    render_all(bundle)
    assert check_bundle(bundle, signers) == []  # the same bytes: the signature holds
    stranger = allowed(new_key(tmp_path / "other"))
    assert check_bundle(bundle, stranger) == [
        f"SHA256SUMS.sig: is by none of the keys in {stranger}"
    ]


def test_an_edited_report_with_new_hashes_is_not_the_signed_one(bundle, key):
    sign(bundle, key)
    (bundle / "report.md").write_text("All passed.")
    write_sums(bundle)

    (fault,) = (f for f in check_bundle(bundle) if "SHA256SUMS.sig" in f)

    assert fault.startswith("SHA256SUMS.sig: is not of this SHA256SUMS: ")


def test_an_edited_byte_of_a_signature_is_named(bundle, key):
    sign(bundle, key)
    path = bundle / "SHA256SUMS.sig"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert signature_fault(bundle), f"byte {place}"
    for changed in (whole + b"\n", whole.replace(b"\n", b"\r\n"), b"", b"\xff"):
        path.write_bytes(changed)
        assert signature_fault(bundle)
    path.write_bytes(whole)
    assert not signature_fault(bundle)


def test_a_key_that_is_none_and_a_missing_program_are_one_line(bundle, key, monkeypatch):
    with pytest.raises(InputError, match="cannot sign: ") as caught:
        sign(bundle, bundle / "report.json")
    assert "\n" not in str(caught.value)
    sign(bundle, key)
    monkeypatch.setenv("PATH", "")
    assert "cannot be checked: " in check_bundle(bundle)[0]


def check_quickly(folder):
    """The comparison with the list of hashes alone: the judgement has tests of its own."""
    from harness.report.bundle import _altered

    load_report(folder)
    return list(_altered(folder))


def rewritten(folder, change):
    """Edit report.json as somebody would who also makes the list of hashes anew."""
    path = folder / "report.json"
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report, indent=1))
    write_sums(folder)


def all_pass(report):
    for case in report["cases"]:
        case["verdict"] = "pass"
        for item in case["items"]:
            item["verdict"] = "pass"
            for check in item["checks"]:
                check["verdict"] = "pass"


def other_bound(report):
    report["cases"][0]["items"][0]["checks"][0]["bound"] = "<= 5 files"


def other_value(report):
    report["cases"][0]["items"][1]["checks"][0]["value"] = 3


def no_deviations(report):
    report["deviations"], report["exit_code"] = [{"path": "x", "text": "y"}], 0


def forged_chain(report):
    report["chain"][1]["sha256"] = "0" * 64


def lost_check(report):
    del report["cases"][0]["items"][0]["checks"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (all_pass, "verdict does not follow from the measurements"),
        (other_bound, "bound does not follow from the measurements"),
        (other_value, "chain/verdicts is not the hash of what is here"),
        (no_deviations, "deviations does not follow"),
        (forged_chain, "chain does not hold"),
        (lost_check, "does not follow"),
        (lambda r: r.pop("cases"), "is no complete report"),
        (lambda r: r.update(cases=[7]), "is no complete report"),
    ],
)
def test_an_edited_report_is_noticed_although_the_hashes_agree(bundle, change, words):
    rewritten(bundle, change)

    faults = check_bundle(bundle)

    assert any(words in f for f in faults)
    assert all("\n" not in f for f in faults)
    with pytest.raises(InputError, match="is not as it was judged"):
        require_untouched(bundle)


def test_weakened_cases_are_noticed_although_the_hashes_agree(bundle):
    path = bundle / "cases" / "ag-00-05.yaml"
    path.write_text(path.read_text().replace("<= 0.01", "<= 0.5"))
    write_sums(bundle)

    faults = check_bundle(bundle)

    assert "report.json: chain/criteria is not the hash of what is here" in faults
    assert any("cases/AG-00-05/items/files/checks/lost/bound" in f for f in faults)


def test_what_is_added_or_taken_away_is_named(bundle):
    (bundle / "cases" / "new.yaml").write_text("")
    (bundle / "evidence" / "link.png").symlink_to("/etc/hostname")
    next((bundle / "evidence").glob("*.png")).unlink()

    faults = check_bundle(bundle)

    assert "cases/new.yaml: is not in SHA256SUMS" in faults
    assert "evidence/link.png: is a link, not a file" in faults
    assert any(f.endswith("is gone") for f in faults)


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../../secret.png", "evidence/../secret.png", "evidence/x.png"]
)
def test_a_hostile_report_inlines_no_file_of_the_machine(bundle, path):
    (bundle / "secret.png").write_text("secret")

    def change(report):
        report["figures"][0]["data"][0]["path"] = path

    rewritten(bundle, change)

    with pytest.raises(InputError, match="no image of the report"):
        render_all(bundle)


def test_an_image_that_is_a_link_is_not_inlined(bundle):
    path = next((bundle / "evidence").glob("*.png"))
    path.unlink()
    path.symlink_to("/etc/hostname")

    with pytest.raises(InputError, match="no image of the report"):
        render_all(bundle)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"schema": "nightjar-report/3"}', '{"schema": "nightjar-report/9"}']
)
def test_a_report_that_cannot_be_rendered_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "report.json").write_text(text)

    with pytest.raises(InputError) as caught:
        render_all(tmp_path)

    assert "\n" not in str(caught.value)
