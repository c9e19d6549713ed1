"""Pages of nights: what was observed, how good it was, what failed and how it ended."""

import json

import pytest

from harness.catalog import connect
from harness.report import load_report, render_all, write_report
from harness.report.bundle import check_bundle
from harness.report.model import build
from harness.report.nights import nights
from harness.verify.engine import judge_cases
from harness.verify.loader import load_spec
from harness.verify.paths import TESTCASES
from pipeline.errors import InputError


def change(space, *statements):
    with connect(space.catalog) as connection:
        for statement in statements:
            connection.execute(statement)


def begin(space, visit, mjd):
    """Set when an exposure began."""
    change(space, f"update exposure set startMjdUtc = {mjd} where visit = {visit}")


@pytest.fixture(autouse=True)
def observed(space):
    """The exposures in the catalogue, as a run registers them."""
    change(space, f"insert into exposure by name from read_parquet('{space.exposures}')")


def column(night, name):
    quality = night["quality"]
    return [row[quality["columns"].index(name)] for row in quality["rows"]]


def test_a_night_lasts_from_noon_to_noon(context):
    begin(context.space, 1, 57070.98)  # 23:31 UTC of 17 February 2015
    begin(context.space, 2, 57071.25)

    (night,) = nights(context)

    assert night["night"] == "2015-02-17"
    assert (night["visits"], night["frames"]) == (2, 2)
    assert column(night, "visit") == [1, 2]
    assert column(night, "start / h UTC") == [23.52, 6.0]


def test_values_are_medians_and_missing_ones_are_none(context):
    change(
        context.space,
        "update visit_image set psfFwhm = 1.5, psfE1 = 0.03, psfE2 = -0.04 where visit = 2",
        "insert into visit_image by name select * replace ('2_02' as visitImageId, 2 as detector, "
        "31.0::float as zeroPoint, 0.0::float as psfE1, 0.1::float as psfE2) "
        "from visit_image where visit = 2",
    )

    first, second = nights(context)

    assert column(first, "seeing / arcsec") == [None]
    assert column(second, "frames") == [2]
    assert column(second, "zero point / mag") == [30.5]
    assert column(second, "ellipticity") == [pytest.approx(0.075)]
    seeing = second["figures"][0]["data"]
    assert seeing["series"] == [{"name": "g", "points": [[12.0, 1.5]]}]


def test_failures_are_told_with_their_kind_and_end(context):
    change(
        context.space,
        "update unit set status = 'failed', cause = 'NO_STARS', message = 'none', attempts = 2 "
        "where visit = 2 and stage = 'calibrate'",
        "update unit set attempts = 3 where visit = 2 and stage = 'isr'",
    )

    first, second = nights(context)

    assert (first["failed"], first["recovered"], first["failures"]["rows"]) == (0, 0, [])
    assert (second["failed"], second["recovered"]) == (1, 1)
    assert second["failures"]["rows"] == [
        [2, 1, "calibrate", "failed", "NO_STARS", 2, "none"],
        [2, 1, "isr", "done", None, 3, None],
    ]
    assert second["performance"]["rows"] == [
        ["isr", 1, 0, 1, 1.0, 1.0],
        ["calibrate", 0, 1, 1, 1.0, 1.0],
    ]


def test_a_catalogue_that_cannot_answer_says_so(context):
    change(context.space, "alter table visit_image drop column psfFwhm")

    (night,) = nights(context)

    assert "psfFwhm" in night["problem"]


@pytest.fixture
def folder(context):
    spec = load_spec()
    made = build("camp-001", spec, context, judge_cases(spec, context, only=["AG-00-25/unique"]))
    path = context.space.root / "reports" / "camp-001"
    write_report(json.loads(json.dumps(made, allow_nan=False)), path, TESTCASES)
    return path


def test_each_night_has_a_page_that_the_report_links(folder):
    page = (folder / "report.html").read_text()
    before = {p: p.read_bytes() for p in folder.rglob("*.html")}

    assert [p.name for p in sorted((folder / "nights").iterdir())] == [
        "2015-02-16.html",
        "2015-02-17.html",
    ]
    assert all(f'href="nights/{p.name}"' in page for p in (folder / "nights").iterdir())
    render_all(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*.html")} == before
    (folder / "nights" / "2015-02-16.html").write_text("fine")
    assert any(f.startswith("nights/2015-02-16.html: is altered") for f in check_bundle(folder))
    render_all(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*.html")} == before


def test_a_hostile_night_leads_nowhere(folder):
    for name in ("../../x", "2015-02-16/../../../x", 7, None):
        report = load_report(folder)
        report["nights"][0]["night"] = name
        (folder / "report.json").write_text(json.dumps(report))

        with pytest.raises(InputError, match="names the night"):
            render_all(folder)
