"""One small campaign from raw frames to alerts, and what may happen to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from harness.alerts.place import Place, cutouts_of
from harness.catalog import Catalog
from harness.cli.main import execute
from harness.settings import Settings
from harness.system.hashes import file_hash
from harness.tasks.template import warped
from harness.workspace import Workspace
from pipeline import alerts, diaobject, io
from pipeline.schema import to_numpy

Contents = Callable[[Path], dict[str, str]]


@pytest.fixture
def copy(campaign: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(campaign, tmp_path / "tiny"))


def test_every_unit_is_done_and_its_product_is_recorded(campaign: Path) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        bad = catalog.rows("SELECT * FROM unit WHERE status <> 'done'")
        assert bad == []
        stages = {
            r["stage"]: r["n"]
            for r in catalog.rows("SELECT stage, count(*) AS n FROM unit GROUP BY stage")
        }
        assert stages == {"isr": 14, "calibrate": 14, "template": 2} | dict.fromkeys(
            ("subtract", "diasource", "diaobject", "forced", "alerts"), 8
        )
        costs = (
            "cpuS <= 0 OR wallS <= 0 OR peakRssMiB < 50 OR inputHash IS NULL OR configHash IS NULL"
        )
        assert catalog.value(f"SELECT count(*) FROM unit WHERE {costs}") == 0
        for table in ("visit_image", "template", "difference_image"):
            for row in catalog.rows(f"SELECT file, sha256 FROM {table}"):
                assert file_hash(campaign / row["file"]) == row["sha256"]


def test_forced_fluxes_from_tiles_are_those_from_whole_planes(campaign: Path) -> None:
    space = Workspace(campaign)
    config = Settings.load(space.config).diaobject
    with Catalog(space.catalog, read_only=True) as catalog:
        unit = catalog.fetch("SELECT visit, detector FROM DiaForcedSource LIMIT 1")[0]
        objects = catalog.query("SELECT * FROM DiaObject ORDER BY diaObjectId")
    near = tuple(to_numpy(objects, name) for name in ("ra", "dec"))
    difference, science = space.difference(*unit), space.visit_image(*unit)
    few, all_ = (
        diaobject.force(objects, io.read_difference(difference, places),
                        io.read_exposure(science, places), config, processed_mjd_tai=0.0)
        for places in (near, None)
    )  # fmt: skip
    assert few.num_rows > 10
    assert few.equals(all_)


def test_provenance_of_a_difference_resolves_to_files_with_these_hashes(campaign: Path) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        for row in catalog.rows("SELECT * FROM difference_image"):
            with io.open_fits(campaign / row["file"]) as hdus:
                cards = dict(hdus[0].header)
            science = campaign / "products" / "visit_image" / f"{cards['SCIID']}.fits"
            template = campaign / "products" / "template" / f"{cards['TMPLID']}.fits"
            assert file_hash(science) == cards["SCIHASH"]
            assert file_hash(template) == cards["TMPLHASH"]
            inputs = [cards[f"TMPLIN{i + 1}"] for i in range(cards["NTMPLIN"])]
            recorded = catalog.rows(
                "SELECT visitImageId, sha256 FROM template_input WHERE templateId = ?",
                [cards["TMPLID"]],
            )
            assert sorted(inputs) == sorted(r["visitImageId"] for r in recorded)
            assert cards["SCIID"] not in inputs
            for r in recorded:
                path = campaign / "products" / "visit_image" / f"{r['visitImageId']}.fits"
                assert file_hash(path) == r["sha256"]
            known = catalog.value("SELECT count(*) FROM run WHERE runId = ?", [cards["RUNID"]])
            assert known == 1
            assert {"STAGEVER", "CONFHASH", "SOFTVER"} <= cards.keys()


def test_objects_agree_with_their_sources(campaign: Path) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        wrong = catalog.value(
            """SELECT count(*) FROM DiaObject o LEFT JOIN
            (SELECT diaObjectId, count(*) AS n FROM DiaSource GROUP BY 1) s USING (diaObjectId)
            WHERE o.nDiaSources IS DISTINCT FROM s.n"""
        )
        assert wrong == 0
        assert catalog.value("SELECT max(nDiaSources) FROM DiaObject") > 1
        twice = """SELECT count(*) FROM (SELECT 1 FROM DiaSource WHERE diaObjectId IS NOT NULL
            GROUP BY diaObjectId, visit HAVING count(*) > 1)"""
        assert catalog.value(twice) == 0
        orphans = """SELECT count(*) FROM DiaSource WHERE NOT coalesce(isSubThreshold, false)
            AND NOT isDeblendParent AND (diaObjectId IS NULL) = (ssObjectId IS NULL)"""
        assert catalog.value(orphans) == 0


def test_forced_means_are_those_of_the_forced_sources(campaign: Path) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        wrong = catalog.value(
            """SELECT count(*) FROM DiaObject o JOIN (
              SELECT diaObjectId, sum(psfFlux / psfFluxErr ** 2) / sum(1 / psfFluxErr ** 2) AS mean
              FROM DiaForcedSource WHERE band = 'g' AND psfFlux IS NOT NULL AND psfFluxErr > 0
              GROUP BY 1) f USING (diaObjectId)
            WHERE abs(o.g_fpFluxMean - f.mean) > 1e-4 * abs(f.mean) + 1e-2"""
        )
        assert wrong == 0
        assert catalog.value("SELECT count(*) FROM DiaObject WHERE g_fpFluxMean IS NOT NULL") > 0


def test_bodies_agree_with_their_sources(campaign: Path) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        seen = """SELECT ssObjectId, count(*) AS nObs, max(midpointMjdTai) - min(midpointMjdTai)
          AS arc FROM DiaSource WHERE ssObjectId IS NOT NULL GROUP BY 1"""
        wrong = f"""SELECT count(*) FROM SSObject o FULL JOIN ({seen}) s USING (ssObjectId)
          WHERE o.nObs IS DISTINCT FROM s.nObs OR NOT abs(o.arc - s.arc) < 1e-4"""
        assert catalog.value(wrong) == 0
        assert catalog.count("SSObject") > 10


def test_nothing_of_the_future_is_in_an_alert(campaign: Path) -> None:
    seen = 0
    for path in sorted((campaign / "alerts").glob("*.avro")):
        for packet in alerts.read(path):
            seen += 1
            now = packet["diaSource"]["midpointMjdTai"]
            past = [*(packet["prvDiaSources"] or ()), *(packet["prvDiaForcedSources"] or ())]
            assert all(p["midpointMjdTai"] <= now for p in past)
            if packet["diaObject"] is not None:
                assert packet["diaObject"]["lastDiaSourceMjdTai"] <= now
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        assert seen == catalog.value("SELECT count(*) FROM alert WHERE emitted") > 0


def test_cutouts_are_those_of_the_files(campaign: Path) -> None:
    """They are made of planes in memory, which the files hold bit for bit."""
    space, unit = Workspace.open(campaign), (411420, 1)
    difference = io.read_difference(space.difference(*unit)).exposure
    science = io.read_exposure(space.visit_image(*unit))
    name = str(difference.provenance["TMPLID"])
    template = warped(space.template(name), science, Settings.load(space.config).template)
    sources = io.read_parquet(space.staging("DiaSource", *unit))
    stored = io.read_parquet(space.staging("cutout", *unit))
    assert stored.num_rows > 0
    assert alerts.cut_out(sources, difference, science, template).equals(stored)


def test_second_run_does_nothing(
    campaign: Path, capsys: pytest.CaptureFixture[str], contents: Contents
) -> None:
    before = contents(campaign)
    assert execute(["run", str(campaign), "--json"]) == 0
    phases = json.loads(capsys.readouterr().out)["phases"]
    assert all(set(counts) == {"cached"} for counts in phases.values()), phases
    assert contents(campaign) == before


def test_changed_value_remakes_what_depends_on_it_and_says_so(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["run", str(campaign), "-n", "--set", "subtract.clip_sigma=5.0"]) == 0
    text = capsys.readouterr().out
    assert "subtract.clip_sigma 4.0→5.0" in text
    assert "visit image  14 cached" in text
    assert "difference   8 todo" in text


def test_missing_and_damaged_products_are_made_again(copy: Path, contents: Contents) -> None:
    before = contents(copy)
    (copy / "products/template/Blind15A_40_g_01.fits").unlink()
    victim = copy / "products/visit_image/411420_02.fits"
    victim.write_bytes(victim.read_bytes() + b"x")
    assert execute(["run", str(copy), "-q", "-j", "2"]) == 0
    assert contents(copy) == before


@pytest.mark.slow
def test_any_product_can_be_lost(copy: Path, contents: Contents) -> None:
    """One of each kind and of each visit; whatever derives from it is the same afterwards.

    Those that are lost together are of different detectors, and neither derives from the other.
    """
    before = contents(copy)
    for victims in (
        ("products/difference/411420_01.fits", "products/template/Blind15A_40_g_02.fits"),
        ("products/visit_image/411035_01.fits", "products/difference/419802_02.fits"),
        ("staging/DiaForcedSource/412568_02.parquet", "products/visit_image/412568_01.fits"),
        ("staging/DiaSource/411772_01.parquet", "alerts/411420_02.avro"),
    ):
        for victim in victims:
            (copy / victim).unlink()
        assert execute(["run", str(copy), "-q", "-j", "1"]) == 0
        assert contents(copy) == before, victims


@pytest.mark.slow
def test_visits_may_come_in_any_order(
    simulated: Path, campaign: Path, tmp_path: Path, contents: Contents
) -> None:
    late = Workspace.create(tmp_path / "late")
    late.config.write_bytes((simulated / "nightjar.toml").read_bytes())
    for name in ("raw", "calib", "refcat", "ephemerides"):
        (late.root / name).rmdir()
        (late.root / name).symlink_to(simulated / name)
    for visits in (["412568"], ["411420", "419802"], []):
        chosen = [word for visit in visits for word in ("--visit", visit)]
        assert execute(["run", str(late.root), "-q", "-j", "1", *chosen]) == 0
    assert contents(late.root) == contents(campaign)


@pytest.mark.parametrize(
    "product",
    ["visit_image/412568_01.fits", "template/Blind15A_40_g_02.fits", "difference/419802_02.fits"],
)
def test_product_can_be_made_again_bit_for_bit(campaign: Path, product: str) -> None:
    assert execute(["rerun", str(campaign / "products" / product)]) == 0


def test_rerun_names_what_changed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bias = copy / "calib" / "bias_01.fits"
    shutil.copyfile(copy / "calib" / "bias_02.fits", bias)
    assert execute(["rerun", str(copy / "products/visit_image/412568_01.fits")]) == 1
    text = capsys.readouterr().out
    assert "IMAGE:" in text
    assert "values differ" in text


def test_unit_with_a_damaged_raw_frame_fails_and_the_rest_goes_on(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = copy / "raw" / "411420.fits.fz"
    raw.write_bytes(raw.read_bytes()[: raw.stat().st_size // 2])
    assert execute(["run", str(copy), "-q", "-j", "2"]) in (1, 2)
    capsys.readouterr()


def test_words_about_the_campaign(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(campaign)
    assert execute(["status", root, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["troubles"] == []
    assert execute(["explain", root, "412568", "1"]) == 0
    text = capsys.readouterr().out
    assert "template inputs" in text
    assert "accepted" in text
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        number = catalog.value("SELECT diaSourceId FROM alert WHERE emitted ORDER BY 1")
    assert execute(["explain", root, str(number), "--json"]) == 0
    story = json.loads(capsys.readouterr().out)
    assert story["source"]["diaSourceId"] == number
    assert story["alert"][0]["emitted"] is True
    assert execute(["explain", root, "1"]) == 2
    assert "nothing is known of id 1" in capsys.readouterr().err


def test_story_comes_with_stamps(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a source as it was cut out for its alert, of a peak that never was one from the images."""
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        source = catalog.rows("SELECT * FROM DiaSource JOIN alert USING (diaSourceId) LIMIT 1")[0]
        peak = catalog.rows(
            "SELECT * FROM candidate WHERE candidateId NOT IN (SELECT diaSourceId FROM DiaSource)"
            " AND x BETWEEN 40 AND 470 AND y BETWEEN 40 AND 470 ORDER BY candidateId LIMIT 1"
        )[0]
    for number in (source["diaSourceId"], peak["candidateId"]):
        assert execute(["explain", str(campaign), str(number), "--stamps", str(tmp_path)]) == 0
        text = capsys.readouterr().out
        story, drawn = text.split(f"stamps of {number}: science, template, difference")
        assert "candidate" in story
        assert len(drawn.splitlines()) >= 16
        for kind in ("science", "template", "difference"):
            assert (tmp_path / f"{number}_{kind}.png").read_bytes().startswith(b"\x89PNG")


def test_stamps_of_a_place_are_the_pixels_there(campaign: Path) -> None:
    space = Workspace.open(campaign)
    path = next((campaign / "products" / "difference").glob("*_01.fits"))
    visit = int(path.stem.split("_")[0])
    difference = io.read_exposure(path)
    place = Place(7, visit, 1, 200.2, 150.4, "", is_source=False)

    cut = cutouts_of(space, place)

    assert set(cut) == {"diaSourceId", "cutoutScience", "cutoutDifference"}  # no such template
    with fits.open(BytesIO(cut["cutoutDifference"])) as hdus:
        assert np.array_equal(hdus[0].data, difference.image[119:182, 169:232])


@pytest.mark.parametrize("suffix", ["parquet", "vot", "csv"])
def test_export_has_every_row(campaign: Path, tmp_path: Path, suffix: str) -> None:
    from astropy.table import Table

    path = tmp_path / f"objects.{suffix}"
    assert execute(["export", str(campaign), "DiaObject", str(path)]) == 0
    kind = {"parquet": "parquet", "vot": "votable", "csv": "ascii.csv"}[suffix]
    if suffix == "parquet":
        table = io.read_parquet(path)
        n, unit = table.num_rows, table.schema.field("ra").metadata[b"unit"].decode()
        assert unit == "deg"
    else:
        read = Table.read(path, format=kind)
        n = len(read)
        assert suffix == "csv" or str(read["ra"].unit) == "deg"
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        assert n == catalog.count("DiaObject") > 0


def test_export_of_nonsense_is_one_line(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["export", str(campaign), "DiaObjekt", str(tmp_path / "x.csv")]) == 2
    assert "did you mean DiaObject" in capsys.readouterr().err
    assert execute(["export", str(campaign), "DiaObject", str(tmp_path / "x.doc")]) == 2
    assert (
        execute(["export", str(campaign), "DiaObject", str(tmp_path / "x.csv"), "--where", "("])
        == 2
    )


def test_contact_sheet_is_an_image(campaign: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    path = tmp_path / "sheet.png"
    assert execute(["inspect", str(campaign), "412568", "1", "-o", str(path)]) == 0
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 400
    assert pixels.std() > 0.05


def test_alert_page_shows_three_stamps_each(campaign: Path, tmp_path: Path) -> None:
    path = tmp_path / "alerts.html"
    avro = campaign / "alerts" / "412568_01.avro"
    assert execute(["alerts", "show", str(avro), "--html", str(path), "--limit", "3"]) == 0
    assert path.read_text(encoding="utf-8").count("data:image/png;base64,") == 9
    assert execute(["alerts", "check", str(avro)]) in (0, 1)  # judged in its own tests


def test_logs_name_every_unit(campaign: Path) -> None:
    lines = [
        json.loads(line)
        for path in sorted((campaign / "logs").glob("*-run.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    units = {(r["visit"], r["detector"], r["stage"]) for r in lines if "visit" in r}
    assert len([u for u in units if u[2] == "calibrate"]) == 14
    assert not [r for r in lines if r["level"] in ("error", "critical")]
