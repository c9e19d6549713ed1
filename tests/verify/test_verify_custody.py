"""The chain of custody: records of runs against pin, configuration and logs beside them."""

import json

import pytest

from harness.campaign.chain import link, unchained
from harness.catalog import Catalog, connect
from harness.settings import Settings
from harness.system.hashes import file_hash
from harness.verify.kinds.custody import Custody
from harness.verify.measurement import NotRun
from harness.verify.pin import pin


def record(n, previous, **values):
    usual = {"runId": f"camp-{n}", "startedMjdTai": 60000.0 + n, "softwareVersion": "1",
             "configHash": "c", "specHash": None, "seed": 1, "previousHash": previous,
             "command": "nightjar run camp", "status": "done", "fileHashes": None}  # fmt: skip
    return usual | values


@pytest.fixture
def runs(space):
    """Two runs that ended well, with their logs, configurations and the pinned specification."""
    pin(space)
    rows = []
    for n in (1, 2):
        log = space.logs / f"{n}-run.jsonl"
        log.write_text('{"level": "info", "message": "run done"}\n')
        kept = space.run_config(f"camp-{n}")
        Settings.load(space.config).save(kept)
        files = {space.relative(p): file_hash(p) for p in (log, kept)}
        rows.append(
            record(
                n,
                link(rows[-1]) if rows else "",
                specHash=file_hash(space.specification),
                fileHashes=json.dumps(files),
            )
        )
    with Catalog(space.catalog) as catalog:
        catalog.insert_rows("run", rows)
    return space


def breaks(context, of):
    return Custody(of=of).measure(context, None)


@pytest.mark.parametrize("of", ["specification", "runs", "ending", "logs", "configuration"])
def test_an_untouched_campaign_has_no_breaks(runs, context, of):
    got = breaks(context, of)

    assert got.value == 0
    assert got.population > 0


def sql(space, statement):
    with connect(space.catalog) as connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "run"),
    [
        ("update run set specHash = 'weaker' where runId = 'camp-1'", "camp-2"),
        ("update run set softwareVersion = '2' where runId = 'camp-1'", "camp-2"),
        ("update run set previousHash = null where runId = 'camp-2'", "camp-2"),
        ("delete from run where runId = 'camp-1'", "camp-2"),
        ("update run set startedMjdTai = 70000 where runId = 'camp-1'", "camp-2"),
    ],
)
def test_an_edited_record_breaks_the_chain(runs, context, statement, run):
    sql(runs, statement)

    assert run in [s["run"] for s in breaks(context, "runs").failing]


def test_runs_older_than_the_chain_may_lead_it():
    old = record(1, None)
    new = record(2, link(old))

    assert unchained([old, new]) == []
    assert unchained([old, new, record(3, None)]) == ["camp-3"]
    assert unchained([old, record(2, "")]) == ["camp-2"]


def test_the_pin_has_to_be_that_of_the_runs(runs, context):
    path = runs.specification
    path.write_text(path.read_text().replace("= 0 files", "<= 9 files", 1))

    got = breaks(context, "specification")

    assert got.value == 2
    assert "is altered" in got.note


@pytest.mark.parametrize("status", ["interrupted", "running"])
def test_a_run_that_did_not_end_is_named(runs, context, status):
    sql(runs, f"update run set status = '{status}' where runId = 'camp-2'")

    assert breaks(context, "ending").note == f"the run is {status}: start it again"


def test_what_an_older_run_left_is_no_matter(runs, context):
    sql(runs, "update run set status = 'interrupted' where runId = 'camp-1'")

    assert breaks(context, "ending").value == 0


@pytest.mark.parametrize("deed", ["deleted", "shortened", "all deleted"])
def test_a_log_that_is_not_as_it_was_is_named(runs, context, deed):
    log = runs.logs / "1-run.jsonl"
    if deed == "shortened":
        log.write_text("")
    else:
        for path in [log] if deed == "deleted" else list(runs.logs.glob("*.jsonl")):
            path.unlink()

    got = breaks(context, "logs")

    assert got.failing[0]["file"] == "logs/1-run.jsonl"
    assert got.value == (2 if deed == "all deleted" else 1)


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ("profile = \"tiny\"", "profile = \"\"", "campaign.profile"),
        ("seed = 1", "seed = 2", "campaign.seed"),
        ("[report]", "[diasource]\nthreshold = 6.0\n[report]", "diasource.threshold"),
    ],
)  # fmt: skip
def test_an_edited_configuration_is_named(runs, context, before, after, key):
    text = runs.config.read_text()
    assert before in text
    runs.config.write_text(text.replace(before, after))

    assert [s["key"] for s in breaks(context, "configuration").failing] == [key]


def test_people_and_processes_may_change_and_overrides_are_known(runs, context):
    kept = runs.run_config("camp-2")
    Settings.load(runs.config, ["diasource.threshold=6.0"]).save(kept)
    runs.config.write_text(runs.config.read_text().replace("A. Tester", "B. Tester"))
    sql(runs, "update run set command = 'nightjar run camp --set diasource.threshold=6.0'")

    assert breaks(context, "configuration").value == 0


@pytest.mark.parametrize("of", ["specification", "logs", "configuration"])
def test_what_was_not_recorded_is_not_run(space, context, of):
    with Catalog(space.catalog) as catalog:
        catalog.insert_rows("run", [record(1, None)])

    with pytest.raises(NotRun):
        breaks(context, of)


def test_without_any_run_nothing_was_tested(context):
    assert all(breaks(context, of).population == 0 for of in ("runs", "ending", "specification"))
