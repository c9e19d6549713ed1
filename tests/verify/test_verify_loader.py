import json
import shutil

import pytest

from harness.verify.loader import SCHEMAS, json_schema, load_spec
from harness.verify.nodes import SpecError, read_yaml
from harness.verify.paths import TESTCASES

CASE = """\
schema: 1
id: AG-00-05
title: A case
version: 1.0.0
derived_from: {document: LDM-533, version: "1.1", section: x}
purpose: To be read.
items:
  - id: one
    text: An item.
    requirements: [DMS-REQ-0010]
    checks:
      - id: first
        text: Rows that must not be.
        sql: {population: select 1, rows: select 1}
"""


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "cases"
    made.mkdir()
    (made / "ag-00-05.yaml").write_text(CASE)
    (made / "waivers.yaml").write_text("schema: 1\nwaivers: []\n")
    (made / "attributes.yaml").write_text("schema: 1\nmatrices: []\n")
    (made / "requirements.yaml").write_text(
        "schema: 1\nrequirements:\n"
        "  - {id: DMS-REQ-0010, title: t, text: x, source: LSE-61, priority: 1b}\n"
    )
    return made


def problems(folder):
    with pytest.raises(SpecError) as caught:
        load_spec(folder)
    return [str(p).removeprefix(f"{folder}/") for p in caught.value.problems]


def test_the_committed_specification_has_no_mistakes():
    spec = load_spec()

    assert [c.id for c in spec.cases][:6] == [f"AG-00-{n:02d}" for n in (0, 5, 10, 15, 20, 25)]
    for case in spec.cases:
        assert sum(len(i.checks) for i in case.items) >= 3


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_is_that_of_the_models(name):
    published = json.loads((TESTCASES / f"{name}.schema.json").read_text())

    assert published == json_schema(name)


def test_a_small_specification(folder):
    spec = load_spec(folder)

    assert list(spec.criteria) == ["AG-00-05/one/first", "requirements/DMS-REQ-0010"]
    assert spec.cases[0].items[0].checks[0].limit.text == "= 0 rows"


def test_every_mistake_is_reported_at_once(folder):
    text = CASE.replace("title: A case", "titel: A case")
    text = text.replace("version: 1.0.0", "version: 1.0")
    text = text.replace("        text: Rows", "        bonud: '= 0 rows'\n        text: Rows")
    text = text.replace("rows: select 1}", "rwos: select 1}")
    (folder / "ag-00-05.yaml").write_text(text)

    assert problems(folder) == [
        "ag-00-05.yaml:1:1: key 'title' is missing",
        "ag-00-05.yaml:3:1: unknown key 'titel' (did you mean 'title'?)",
        "ag-00-05.yaml:4:10: input should be a valid string",
        "ag-00-05.yaml:13:9: unknown key 'bonud' (did you mean 'bound'?)",
        "ag-00-05.yaml:15:37: unknown key 'rwos' (did you mean 'rows'?)",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "2:1: duplicate key 'a'"),
        ("a: 10:21:33\n", "sexagesimal"),
        ("a: 0411321\n", "octal"),
        ("a: 0x1f\n", "decimal"),
        ("a: yes\n", "write true, false or quote it"),
        ("a: &b 1\n", "anchors"),
        ("a: !!python/none x\n", "not"),
        ("a: [1\n", "not YAML"),
        ("a: .nan\n", "finite"),
        ("", "empty"),
    ],
)
def test_what_yaml_would_guess_is_refused(tmp_path, text, said):
    path = tmp_path / "x.yaml"
    path.write_text(text)

    found = read_yaml(path).problems

    assert found
    assert said in str(found[0])


def test_plain_values_follow_yaml_1_2(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text('a: 1e5\nb: "no"\nc: true\nd: -3\ne: ~\nf: 2027-03-31\ng: >-\n  x\n  y\n')

    document = read_yaml(path)

    assert document.problems == []
    assert document.value == {
        "a": 1e5, "b": "no", "c": True, "d": -3, "e": None, "f": "2027-03-31", "g": "x y",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "image: {metric: wcs_error}\n        bound: '< 50'",
            "has no unit; this is measured in 'mas'",
        ),
        ("image: {metric: wcs_error}\n        bound: '< 50 px'", "has the unit 'px'"),
        ("image: {metric: wcs_eror}\n        bound: '< 50 mas'", "did you mean 'wcs_error'?"),
        ("image: {metric: wcs_error}", "a bound is missing"),
        ("log: {}\n        files: {product: difference}", "exactly one kind per check"),
        ("schema: {matrix: DMS-REQ-0001}", "no matrix 'DMS-REQ-0001'"),
        ("log: {}\n        when: [full-moon]", "unknown condition 'full-moon'"),
        ("log: {}\n        partial: '= 0 messages'", "is not weaker than"),
    ],
)
def test_mistakes_in_a_check(folder, kind, said):
    (folder / "ag-00-05.yaml").write_text(
        CASE.replace("sql: {population: select 1, rows: select 1}", kind)
    )

    assert said in problems(folder)[0]


def test_references_that_lead_nowhere(folder):
    text = CASE.replace("DMS-REQ-0010", "DMS-REQ-0100")
    text = text.replace("items:", "depends_on: [AG-00-00/demo]\nitems:", 1)
    (folder / "ag-00-05.yaml").write_text(text)
    (folder / "waivers.yaml").write_text(
        "schema: 1\nwaivers:\n  - {id: W-0001, check: AG-00-05/one/frist, ticket: T-1, "
        'reason: because it is so, approved_by: me, approved_on: "2029-06-01", '
        'expires: "2030-01-01", no_worse_than: "<= 1"}\n'
    )

    said = "\n".join(problems(folder))

    assert "no such case or item 'AG-00-00/demo'" in said
    assert "unknown requirement 'DMS-REQ-0100' (did you mean 'DMS-REQ-0010'?)" in said
    assert "DMS-REQ-0010 is verified by no item" in said
    assert "no check 'AG-00-05/one/frist' (did you mean 'AG-00-05/one/first'?)" in said


def test_waivers_must_expire(folder):
    (folder / "waivers.yaml").write_text(
        "schema: 1\nwaivers:\n  - {id: W-0001, check: AG-00-05/one/first, ticket: T-1, "
        'reason: because it is so, approved_by: me, approved_on: "2029-06-01", '
        'no_worse_than: "<= 1"}\n'
    )

    assert problems(folder) == ["waivers.yaml:3:5: key 'expires' is missing"]


def test_the_hash_changes_with_a_bound(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(TESTCASES, copy)
    before = load_spec(copy)
    path = copy / "ag-00-10.yaml"
    path.write_text(path.read_text().replace('"< 50 mas"', '"< 60 mas"'))

    after = load_spec(copy)

    assert before.hash == load_spec().hash
    assert after.hash != before.hash
    changed = [p for p in before.criteria if before.criteria[p] != after.criteria[p]]
    assert changed
    assert all(p.startswith("AG-00-10/wcs/") for p in changed)


def waive(folder, *changes):
    usual = {
        "check": "AG-00-05/one/first", "ticket": "T-1", "reason": "because it is so",
        "approved_by": "a.person", "approved_on": "2026-01-01", "expires": "2026-12-31",
        "no_worse_than": "<= 1 rows",
    }  # fmt: skip
    rows = [{"id": f"W-{n:04d}", **usual, **c} for n, c in enumerate(changes, 1)]
    (folder / "waivers.yaml").write_text(f"schema: 1\nwaivers: {json.dumps(rows)}\n")


def test_a_waiver_without_mistakes(folder):
    waive(folder, {})

    assert len(load_spec(folder).waivers) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"no_worse_than": "<= 1e300 parsecs"}, "is in 'parsecs'; AG-00-05/one/first is measured"),
        ({"no_worse_than": "<= 1"}, "is in ''; AG-00-05/one/first is measured in 'rows'"),
        ({"expires": "9999-12-31"}, "at most 366 are allowed"),
        ({"expires": "2025-12-31"}, "expires 2025-12-31 is -1 days after its approval"),
        ({"approved_by": " "}, "is blank"),
        ({"ticket": " "}, "is blank"),
        ({"reason": " " * 12}, "is blank"),
    ],
)
def test_waivers_that_would_accept_anything(folder, change, said):
    waive(folder, change)

    (problem,) = problems(folder)

    assert said in problem
    assert problem.startswith("waivers.yaml:2:")


def test_two_waivers_of_one_check(folder):
    waive(folder, {}, {"no_worse_than": "<= 100 rows"})

    (problem,) = problems(folder)

    assert "AG-00-05/one/first has a waiver already" in problem


def test_a_case_depends_on_earlier_cases_only(folder):
    later = CASE.replace("AG-00-05", "AG-00-10")
    (folder / "ag-00-10.yaml").write_text(later)
    text = CASE.replace("items:", "depends_on: [AG-00-10/one]\nitems:", 1)
    (folder / "ag-00-05.yaml").write_text(text)

    assert problems(folder) == [
        "ag-00-05.yaml:7:14: AG-00-10/one is judged after AG-00-05; "
        "a case can depend on earlier ones only"
    ]


def test_a_weaker_attribute_is_a_changed_criterion(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(TESTCASES, copy)
    before = load_spec(copy)
    path = copy / "attributes.yaml"
    path.write_text(path.read_text().replace("populated: 0.9", "populated: 0.1", 1))

    after = load_spec(copy)
    changed = {p for p in before.criteria if before.criteria[p] != after.criteria.get(p)}

    assert after.hash != before.hash
    assert changed
    assert all(p.startswith("attributes/") for p in changed)


@pytest.mark.parametrize("name", ["requirements", "waivers"])
def test_requirements_and_waivers_are_criteria(tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(TESTCASES, copy)
    before = load_spec(copy)
    if name == "waivers":
        waive(copy, {"check": "AG-00-05/differences/lost", "no_worse_than": "<= 0.5"})
    else:
        path = copy / "requirements.yaml"
        path.write_text(path.read_text().replace("title: ", "title: another ", 1))

    after = load_spec(copy)
    keys = before.criteria.keys() | after.criteria.keys()
    changed = {p for p in keys if before.criteria.get(p) != after.criteria.get(p)}

    assert len(changed) == 1
    assert next(iter(changed)).startswith(f"{name}/")
