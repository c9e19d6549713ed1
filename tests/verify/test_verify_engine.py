import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from harness.catalog import Catalog
from harness.system.software import tree_hash
from harness.verify import evidence as records
from harness.verify.engine import Observation, conclude, judge_cases, judge_check
from harness.verify.kinds import command, load_kinds
from harness.verify.loader import load_spec
from harness.verify.model import case_model
from harness.verify.verdict import Verdict
from pipeline import io
from pipeline.errors import ConfigError
from tests.verify.conftest import row


def check(kind, **more):
    case = case_model().model_validate(
        {
            "schema": 1, "id": "AG-00-05", "title": "t", "version": "1.0.0", "purpose": "p",
            "derived_from": {"document": "d", "version": "1", "section": "s"},
            "items": [
                {"id": "i", "text": "t", "checks": [{"id": "c", "text": "t", **kind, **more}]}
            ],
        }
    )  # fmt: skip
    return case.items[0].checks[0]


def sql(**parameters):
    return {"sql": parameters}


def judged(context, kind, **more):
    return judge_check("AG-00-05/i/c", check(kind, **more), context)


@pytest.fixture
def change(space):
    """Run a statement on the catalogue before it is judged."""
    from harness.catalog import connect

    def run(statement):
        with connect(space.catalog) as connection:
            connection.execute(statement)

    return run


FAINT = sql(
    population="select psfFlux, psfFluxErr from DiaSource",
    rows="select diaSourceId from DiaSource where not psfFlux / psfFluxErr > 5",
)


def test_rows_that_must_not_exist(context):
    got = judged(context, FAINT)

    assert (got.verdict, got.population) == (Verdict.PASS, 10)


def test_failing_rows_are_named_and_kept(context, change, tmp_path):
    change("update DiaSource set psfFlux = 10 where diaSourceId = 3")
    context.store = tmp_path / "kept"

    got = judged(context, FAINT)

    assert got.verdict == Verdict.FAIL
    assert got.measurement.failing == ({"diaSourceId": 3},)
    (path,) = (tmp_path / "kept").glob("*.parquet")
    assert io.read_parquet(path).to_pylist() == [{"diaSourceId": 3}]


def test_nan_does_not_pass_as_a_large_number(context, change):
    change("update DiaSource set psfFlux = 'nan' where diaSourceId = 3")

    got = judged(context, FAINT)

    assert got.verdict == Verdict.FAIL
    assert got.measurement.nans == 1


def test_null_does_not_hide_from_a_predicate(context, change):
    change("update DiaSource set psfFlux = null where diaSourceId = 3")

    assert judged(context, FAINT).verdict == Verdict.FAIL
    excused = judged(context, sql(**FAINT["sql"], allow_nulls="fluxes may fail"))
    assert excused.verdict == Verdict.PASS
    assert excused.measurement.nulls == 1


def test_an_empty_population_is_an_error(context):
    nothing = sql(population="select * from SSObject", rows="select 1 where false")

    assert judged(context, nothing).verdict == Verdict.ERROR
    excused = judged(context, nothing, allow_empty="no bodies here")
    assert (excused.verdict, excused.reason) == (Verdict.NOT_APPLICABLE, "no bodies here")


def test_an_exception_is_an_error_and_no_failure(context):
    got = judged(context, sql(population="select * from nowhere", rows="select 1"))

    assert got.verdict == Verdict.ERROR
    assert "nowhere" in got.reason


def test_estimates_are_judged_by_their_errors(context):
    value = "select avg(snr), stddev(snr) / sqrt(count(*)) from DiaSource"
    kind = sql(population="select snr from DiaSource", value=value, measured_in="")

    assert judged(context, kind, bound="8 .. 14").verdict == Verdict.PASS
    assert judged(context, kind, bound="10 .. 11").verdict == Verdict.NOT_RUN


def test_severity(context):
    kind = sql(population="select snr from DiaSource", value="select 9", measured_in="")

    assert judged(context, kind, bound="< 5").verdict == Verdict.FAIL
    assert judged(context, kind, bound="< 5", severity="should").verdict == Verdict.PARTIAL
    assert not judged(context, kind, bound="< 5", severity="info").counts


def test_conditions_make_a_check_not_applicable(context):
    context.space.config.write_text('[campaign]\nname = "camp"\ncamera = "testcam"\n')

    got = judged(context, FAINT, when=["truth"])

    assert got.verdict == Verdict.NOT_APPLICABLE
    assert "not simulated" in got.reason


def test_files_missing_without_a_cause(context, space):
    assert judged(context, {"files": {"product": "visit_image"}}, bound="= 0 files").verdict == 1
    space.visit_image(2, 1).unlink()

    missing = judged(context, {"files": {"product": "visit_image"}}, bound="= 0 files")
    lost = judged(context, {"files": {"product": "visit_image", "count": "lost"}}, bound="<= 0.5")

    assert missing.measurement.failing == ({"visit": 2, "detector": 1, "cause": "unknown"},)
    assert (lost.verdict, lost.measurement.value) == (Verdict.PASS, 0.5)


def test_an_explained_loss_is_not_unexplained(context, space, change):
    space.visit_image(2, 1).unlink()
    change("update unit set status = 'failed', cause = 'PSF_FAILED' where visit = 2")

    got = judged(
        context, {"files": {"product": "visit_image", "count": "unexplained"}}, bound="= 0 files"
    )

    assert got.verdict == Verdict.PASS
    assert "1 lost to PSF_FAILED" in got.reason


@pytest.mark.parametrize("harm", ["truncate", "flip"])
def test_damaged_files(context, space, harm):
    path = space.visit_image(1, 1)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2] if harm == "truncate" else _flipped(data))

    got = judged(
        context, {"files": {"product": "visit_image", "count": "damaged"}}, bound="= 0 files"
    )
    altered = judged(
        context, {"files": {"product": "visit_image", "count": "altered"}}, bound="= 0 files"
    )

    assert [f["visit"] for f in got.measurement.failing] == [1]
    assert [f["visit"] for f in altered.measurement.failing] == [1]


def _flipped(data):
    data[-3000] ^= 0xFF
    return data


def test_headers(context):
    kind = {"header": {"product": "visit_image", "hdus": ["IMAGE", "KERNEL"],
                       "cards": {"VISIT": {"type": "int"},
                                            "BAND": {"matches": "[ri]"}}}}  # fmt: skip

    got = judged(context, kind)

    assert got.population == 8
    assert {(f["card"], f["visit"]) for f in got.measurement.failing} == {
        ("BAND", 1), ("BAND", 2), ("KERNEL", 1), ("KERNEL", 2),
    }  # fmt: skip


def test_log_audit(context, space):
    lines = [
        {"level": "info", "message": "fine"},
        {"level": "warning", "message": "crosstalk from 27 not applied: frame absent"},
        {"level": "warning", "message": "something odd", "visit": 2},
    ]
    (space.logs / "run.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    explained = [{"pattern": "^crosstalk from", "reason": "partner absent"}]

    got = judged(context, {"log": {"explained": explained}})

    assert (got.measurement.value, got.population) == (1, 3)
    assert got.measurement.failing == ({"visit": 2, "message": "something odd"},)


@pytest.mark.parametrize("order", [1, -1])
def test_cause_of_a_unit_is_that_of_the_stage_that_failed(context, space, order):
    """Not that of the stages it blocked, whatever the order of the rows."""
    stages = [("calibrate", "failed", "PHOTOMETRY_FAILED"), ("diasource", "blocked", "BLOCKED"),
              ("subtract", "blocked", "BLOCKED")]  # fmt: skip
    with Catalog(space.catalog) as made, made.transaction():
        for stage, status, cause in stages[::order]:
            known = {"visit": 77, "detector": 1, "stage": stage, "status": status, "cause": cause}
            made.insert_rows("unit", [row("unit", **known, message=f"{stage} {status}")])
    assert context.causes[77, 1]["cause"] == "PHOTOMETRY_FAILED"


def test_image_metrics_and_their_worst_unit(context):
    got = judged(context, {"image": {"metric": "noise_ratio"}}, bound="0.9 .. 1.1")

    assert got.verdict == Verdict.PASS
    assert got.measurement.value == pytest.approx(1.0, abs=0.03)


def test_a_wrong_variance_plane_is_found(context, space, exposure):
    made = exposure(2, seed=2)
    io.write_exposure(
        space.visit_image(2, 1), made.replace(variance=np.float32(1.3) * made.variance)
    )

    got = judged(context, {"image": {"metric": "noise_ratio"}}, bound="0.95 .. 1.05")

    assert got.verdict == Verdict.FAIL
    assert [f["visit"] for f in got.measurement.failing] == [2]
    assert got.measurement.value == pytest.approx(1.3**-0.5, abs=0.02)


def test_a_frame_that_breaks_a_metric_is_named_and_the_others_judged(context, space):
    path = space.visit_image(2, 1)
    path.write_bytes(path.read_bytes()[:4000])
    kind = {"image": {"metric": "noise_ratio"}}

    good, bad = (judged(context, kind, bound=bound) for bound in ("0.9 .. 1.1", "< 0.5"))

    assert (good.verdict, bad.verdict) == (Verdict.ERROR, Verdict.ERROR)
    assert good.measurement.value == pytest.approx(1.0, abs=0.03)
    assert [r[0] for r in good.measurement.evidence[0].data["rows"]] == [1]
    assert good.reason.startswith("2_01: ")
    assert "the others: Pass" in good.reason
    assert "the others: Fail" in bad.reason


def test_samples_are_kept_until_a_file_changes(context, space, exposure):
    kind = {"image": {"metric": "noise_ratio"}}
    before = judged(context, kind, bound="0.9 .. 1.1").measurement.value
    io.write_exposure(space.visit_image(2, 1), exposure(2, seed=3))

    after = judged(context, kind, bound="0.9 .. 1.1")

    assert len(context.memory["samples"]) == 3
    assert {r[0] for r in after.measurement.evidence[0].data["rows"]} == {1, 2}
    assert isinstance(before, float)


COUNTED = {
    "command": {
        "recorded": "unit-tests",
        "value": "failed",
        "measured_in": "tests",
        "population": "tests",
    }
}


@pytest.fixture
def evidence(tmp_path):
    """Records of two tests that passed, as the writer of records leaves them."""
    folder, junit = tmp_path / "evidence", tmp_path / "junit.xml"
    junit.write_text("<testsuites><testsuite><testcase/><testcase/></testsuite></testsuites>")
    records.run_recorded("unit-tests", ["echo", "2 passed"], folder, junit=junit)
    return folder


def test_absent_records_are_not_run(context):
    absent = judged(context, COUNTED, bound="= 0 tests")

    assert (absent.verdict, absent.absent) == (Verdict.NOT_RUN, True)


def test_recorded_commands(context, evidence):
    here = judged(context, COUNTED, bound="= 0 tests")
    record = json.loads((evidence / "unit-tests.json").read_text())

    assert (here.verdict, here.population) == (Verdict.PASS, 2)
    assert (evidence / "unit-tests.log").read_text().startswith("$ echo 2 passed\n2 passed\n")
    assert record["machine"]["processors"] >= 1
    assert record["tree"] == tree_hash()


def test_a_record_of_other_code_is_not_run(context, evidence):
    record = json.loads((evidence / "unit-tests.json").read_text())
    record["tree"] = "0" * 64
    record["sha256"] = records._seal(record)
    (evidence / "unit-tests.json").write_text(json.dumps(record))

    got = judged(context, COUNTED, bound="= 0 tests")

    assert got.verdict == Verdict.NOT_RUN
    assert "is of other code" in got.reason


def typed(folder):
    result = {"failed": 0, "tests": 12, "exit_status": 0, "wall_s": 1.0}
    text = json.dumps({"kind": "unit-tests", "commit": "+dirty", "utc": "1999", "result": result})
    (folder / "unit-tests.json").write_text(text)


def edited(folder):
    path = folder / "unit-tests.json"
    path.write_text(path.read_text().replace('"tests": 2', '"tests": 12'))


def resealed(folder):
    record = json.loads((folder / "unit-tests.json").read_text())
    record["result"]["tests"] = 12
    record["sha256"] = records._seal(record)
    (folder / "unit-tests.json").write_text(json.dumps(record))


def shorter(folder):
    (folder / "unit-tests.log").write_text("")


def other_outcomes(folder):
    (folder / "unit-tests.xml").write_text("<testsuites/>")


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (typed, "lacks command, junit, log, machine, tree"),
        (edited, "does not have the hash that it states"),
        (resealed, "states other counts than unit-tests.xml"),
        (shorter, "is not of the log unit-tests.log"),
        (other_outcomes, "is not of the file unit-tests.xml"),
    ],
)
def test_a_record_that_no_command_wrote_fails(context, evidence, deed, words):
    deed(evidence)

    got = judged(context, COUNTED, bound="= 0 tests")

    assert got.verdict == Verdict.FAIL
    assert words in got.reason


def test_the_evidence_writer_passes_the_status_on(tmp_path):
    junit = tmp_path / "junit.xml"
    junit.write_text(
        "<testsuites><testsuite><testcase/><testcase><failure/></testcase>"
        '<testcase><skipped message=""/></testcase></testsuite></testsuites>'
    )
    words = [
        "tests",
        "--junit",
        str(junit),
        "--folder",
        str(tmp_path),
        "--",
        sys.executable,
        "-c",
        "exit(3)",
    ]

    status = records.main(words)
    record = json.loads((tmp_path / "tests.json").read_text())

    assert status == 3
    assert record["result"]["exit_status"] == 3
    counts = {"tests": 3, "failed": 1, "skipped": 1, "skipped_without_reason": 1}
    assert counts.items() <= record["result"].items()


def test_live_commands(context, monkeypatch):
    works, fails = "python -c \"print('Ok.')\"", 'python -c "exit(1)"'
    monkeypatch.setattr(command, "COMMANDS", (works, fails))
    good = judged(context, {"command": {"run": works, "stdout": [r"^Ok\.$"]}})
    bad = judged(context, {"command": {"run": fails}})

    assert (good.verdict, bad.verdict) == (Verdict.PASS, Verdict.FAIL)


def inspection(**more):
    parameters = {"question": "Any artefact?", "product": "visit_image", "sheet": "sheet",
                  "seed": 1, "proxy": "AG-00-05/i/c", **more}  # fmt: skip
    return {"inspect": parameters}


def test_units_that_were_named_are_inspected_where_they_are_there(context):
    from harness.verify.kinds.inspect import draw

    named = [{"visit": 2, "detectors": [1, 7]}, {"visit": 9, "detectors": [1]}]
    elsewhere = [{"visit": 9, "detectors": [1]}]

    assert [
        (u.visit, u.detector) for u in draw(context, check(inspection(named=named)).subject)
    ] == [(2, 1)]
    drawn = draw(context, check(inspection(named=elsewhere)).subject)
    assert [(u.visit, u.detector) for u in drawn] == [(1, 1), (2, 1)]


def test_an_unanswered_inspection_is_not_run(context):
    got = judged(context, inspection())

    assert (got.verdict, got.population) == (Verdict.NOT_RUN, 2)


def test_answers_hold_for_the_pixels_they_were_given_for(context, space, exposure):
    from harness.verify.kinds.inspect import draw, fingerprint

    subject = check(inspection()).subject
    units = draw(context, subject)
    pixels = fingerprint(context, "visit_image", units)
    answers = "".join(f"  - {{visit: {u.visit}, detector: 1, answer: none}}\n" for u in units)
    folder = space.root / "inspections"
    folder.mkdir()
    (folder / "sheet.yaml").write_text(f"pixels: {pixels}\ninspector: me\nanswers:\n{answers}")
    before = judged(context, inspection())
    io.write_exposure(space.visit_image(1, 1), exposure(1, seed=9))

    after = judged(context, inspection())

    assert (before.verdict, after.verdict) == (Verdict.PASS, Verdict.NOT_RUN)
    assert "other pixels" in after.reason


def spec_of(tmp_path, items, depends_on=()):
    base = {"schema": 1, "title": "t", "version": "1.0.0", "purpose": "p",
            "derived_from": {"document": "d", "version": "1", "section": "s"}}  # fmt: skip
    folder = tmp_path / "cases"
    folder.mkdir()
    first, second = items
    for name, content, needs in (("AG-00-05", first, []), ("AG-00-10", second, list(depends_on))):
        case = {**base, "id": name, "items": [content], "depends_on": needs}
        (folder / f"{name.lower()}.yaml").write_text(json.dumps(case))
    for name, key in (
        ("waivers", "waivers"),
        ("attributes", "matrices"),
        ("requirements", "requirements"),
    ):
        (folder / f"{name}.yaml").write_text(json.dumps({"schema": 1, key: []}))
    return load_spec(folder)


def item(*checks):
    return {
        "id": "i",
        "text": "t",
        "checks": [{"id": f"c{n}", "text": "t", **c} for n, c in enumerate(checks)],
    }


FAILS = {**sql(population="select 1", rows="select 1")}
PASSES = {**sql(population="select 1", rows="select 1 where false")}


def test_a_failed_dependency_blocks_and_says_so(context, tmp_path):
    spec = spec_of(tmp_path, (item(FAILS), item(PASSES)), ["AG-00-05/i"])

    first, second = judge_cases(spec, context)

    assert (first.verdict, second.verdict) == (Verdict.FAIL, Verdict.NOT_RUN)
    assert second.items[0].checks[0].reason == "blocked by AG-00-05/i"


def test_an_inspection_with_a_good_proxy_changes_nothing(context, tmp_path):
    asked = {**inspection(proxy="AG-00-05/i/c0"), "severity": "should"}
    good, _ = judge_cases(spec_of(tmp_path, (item(PASSES, asked), item(PASSES))), context)

    assert good.verdict == Verdict.PASS
    assert good.items[0].checks[1].verdict == Verdict.NOT_RUN


def test_an_inspection_without_a_good_proxy_stays_open(context, tmp_path):
    asked = {**inspection(proxy="AG-00-05/i/c0"), "severity": "should"}
    failed = {**FAILS, "severity": "should"}
    case, _ = judge_cases(spec_of(tmp_path, (item(failed, asked), item(PASSES))), context)

    assert case.verdict == Verdict.NOT_RUN


def test_a_proxy_that_does_not_apply_is_neutral(context, tmp_path, monkeypatch):
    """It neither stands for an inspection nor against it."""
    monkeypatch.setattr("harness.verify.conditions.shutil.which", lambda name: None)
    absent = {**PASSES, "when": ["scheduler"]}
    both = inspection(proxy=["AG-00-05/i/c0", "AG-00-05/i/c1"])
    none = inspection(proxy=["AG-00-05/i/c0"])
    answers = []
    for number, asked in enumerate((both, none)):
        items = (item(absent, PASSES, {**asked, "severity": "should"}), item(PASSES))
        (tmp_path / str(number)).mkdir()
        answers.append(judge_cases(spec_of(tmp_path / str(number), items), context)[0].verdict)

    assert answers == [Verdict.PASS, Verdict.NOT_RUN]


def test_absent_evidence_stays_out_of_the_exit_status(context, tmp_path):
    recorded = {"command": {"recorded": "container"}}
    case, _ = judge_cases(spec_of(tmp_path, (item(PASSES, recorded), item(PASSES))), context)

    assert (case.verdict, case.judged) == (Verdict.NOT_RUN, Verdict.PASS)


def test_only_some_checks(context, tmp_path):
    spec = spec_of(tmp_path, (item(FAILS, PASSES), item(PASSES)))

    (case,) = judge_cases(spec, context, only=["AG-00-05/i/c1"])

    assert [c.path for c in case.items[0].checks] == ["AG-00-05/i/c1"]


def test_expected_units_do_not_come_from_the_ledger(context, change):
    change("delete from unit where visit = 2")

    assert [(u.visit, u.role) for u in context.units] == [(1, "template"), (2, "science")]
    assert [u.visit for u in context.expected("difference")] == [2]


def test_documents(context, tmp_path):
    assert Path("README.md").is_file()
    got = judged(
        context, {"review": {"document": "README.md", "states": ["make verify", "no such words"]}}
    )

    assert got.measurement.failing == ({"statement": "no such words"},)


@pytest.mark.parametrize(
    "query", ["drop table DiaSource", "copy DiaSource to 'x.csv'", "install httpfs", "select from"]
)
def test_a_case_file_with_other_sql_is_malformed(query):
    with pytest.raises(ValueError, match=r"is DROP|is COPY|is LOAD|is not SQL"):
        check(sql(population="select 1", rows=query))


@pytest.mark.parametrize("name", ["read_csv", "read_text"])
def test_a_check_that_reads_a_file_ends_the_judgement(context, name):
    kind = sql(population="select 1", rows=f"select * from {name}('/etc/passwd')")

    with pytest.raises(ConfigError, match=r"AG-00-05/i/c: .* and nothing else") as caught:
        judged(context, kind)

    assert caught.value.exit_code == 2


def test_an_endless_check_ends_the_judgement(context, monkeypatch):
    monkeypatch.setattr("harness.catalog.guard.TIME_LIMIT", 0.2)
    endless = (
        "select a.range from range(100000000000) a, range(9000) b where a.range = -b.range - 1"
    )

    with pytest.raises(ConfigError, match="was stopped after"):
        judged(context, sql(population="select 1", rows=endless))


def test_a_selected_check_is_judged_with_what_it_depends_on(context, tmp_path):
    spec = spec_of(tmp_path, (item(FAILS), item(PASSES)), ["AG-00-05/i"])

    (only,) = judge_cases(spec, context, only=["AG-00-10/i/c0"])

    assert only.items[0].checks[0].reason == "blocked by AG-00-05/i"


@pytest.mark.parametrize("word", ["truth", "artefacts", "raw", "refcat", "ephemerides"])
def test_what_a_simulation_promised_and_is_gone_is_not_run(context, word):
    got = judged(context, FAINT, when=[word])

    assert got.verdict == Verdict.NOT_RUN
    assert got.reason.startswith("the campaign is a simulation, but ")
    assert not got.absent


def test_a_proxy_does_not_stand_in_for_truth_that_was_taken_away(context):
    assert judged(context, FAINT, when=["no_truth"]).verdict == Verdict.NOT_APPLICABLE


def test_a_clock_set_back_does_not_revive_a_waiver(context):
    context.now = datetime(2001, 1, 1, tzinfo=UTC)
    newest = datetime.fromtimestamp(context.space.catalog.stat().st_mtime, UTC)

    assert context.today >= newest.date()


@pytest.mark.parametrize(
    ("plant", "blocked"),
    [
        ("update unit set status = 'failed', cause = null where visit = 2", False),
        ("delete from unit where visit = 2", False),
        ("update unit set status = 'failed', cause = 'X'", True),
    ],
)
def test_one_failed_frame_silences_no_case(context, change, plant, blocked):
    change(plant)
    spec = load_spec()
    asked = [f"{c.id}/{c.items[0].id}/{c.items[0].checks[0].id}" for c in spec.cases[2:]]

    reasons = {}

    def look(path, check):
        if path == "AG-00-05/run/done":
            return judge_check(path, check, context).observation
        return Observation("not_run", text="not asked")

    for result in conclude(spec, look, context.today, only=asked):
        reasons |= {c.path: c.reason for i in result.items for c in i.checks}

    assert set(reasons) == set(asked)
    expected = "blocked by AG-00-05/run" if blocked else "not asked"
    assert set(reasons.values()) == {expected}


def test_the_kind_in_the_documentation_measures_what_it_says(context):
    page = Path(__file__).parents[2] / "docs" / "verification.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": "example"}
    load_kinds()  # before there is one more
    exec(code, names)
    kind = names["Filled"](tables=["DiaSource", "alert"])

    got = kind.measure(context, None)

    assert (got.value, got.population, got.failing) == (1, 2, ({"table": "alert"},))
    assert kind.usual_bound() == "= 0 tables"


def test_content_of_a_table_is_known_by_its_rows_whatever_their_order(context, change):
    before = context.content("DiaSource")
    context.memory.clear()
    context.catalog.close()
    del context.catalog
    change("create table other as select * from DiaSource order by ra desc")
    assert context.content("other") == before
    context.catalog.close()
    del context.catalog
    context.memory.clear()
    change("update other set psfFlux = psfFlux * 1.000001 where diaSourceId = 3")

    assert context.content("other") != before


def test_tables_of_a_query_are_those_it_names(context):
    sql_of = context.tables_of

    assert sql_of("select v.visit from visit_image v join diasource using (visit)") == {
        "visit_image", "DiaSource",
    }  # fmt: skip
    assert sql_of("select * from information_schema.columns") is None
    assert sql_of("select current_date from DiaSource") is None
