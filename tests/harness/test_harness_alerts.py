"""Alerts shown to people: orientation, scales, pages, comparison, history."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from harness.alerts.difference import alert_differences
from harness.alerts.entries import Choice, alert_files, class_of, read_alerts, summary
from harness.alerts.site import nights_of, sky_map
from harness.alerts.terminal import blocks
from harness.catalog import Catalog
from harness.cli.main import execute
from harness.drawing.cutouts import Stamp, north_up, read_stamps, stamps_as_text
from harness.drawing.lightcurve import Epoch, curve_as_svg, curve_as_text, read_curve
from harness.export.history import known_at, versions_of
from pipeline import diaobject
from pipeline.schema import DIA_SOURCE
from pipeline.sphere import unit_vectors
from sims.solarsystem import observer

_SCALE = 0.26 / 3600


def _packet(campaign: Path) -> dict[str, Any]:
    return next(read_alerts(alert_files([campaign])))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
@pytest.mark.parametrize("side", [8, 9])
def test_a_quarter_turn_keeps_every_pixel_and_puts_north_up_and_east_left(
    side: int, quarter: int, flip: bool
) -> None:
    angle = quarter * np.pi / 2 + 1e-4  # of the columns; real detectors are never square to north
    parity = 1.0 if flip else -1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cd = _SCALE * np.array([[parity, 0.0], [0.0, 1.0]]) @ turn
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    east, north = (cd[i, 0] * x + cd[i, 1] * y for i in (0, 1))

    up, left = north_up(north, cd), north_up(east, cd)
    assert np.all(np.diff(up, axis=0) > 0.9 * _SCALE)
    assert np.all(np.diff(left, axis=1) < -0.9 * _SCALE)
    assert np.array_equal(np.sort(up, axis=None), np.sort(north, axis=None))


def test_an_oblique_image_has_holes_in_its_corners_and_no_new_values() -> None:
    pixels = np.arange(441.0).reshape(21, 21)
    c = np.sqrt(0.5)
    turned = north_up(pixels, _SCALE * np.array([[-c, c], [c, c]]))
    assert np.isnan(turned[[0, 0, -1, -1], [0, -1, 0, -1]]).all()
    assert np.isin(turned[np.isfinite(turned)], pixels).all()
    with pytest.raises(ValueError, match="span no plane"):
        north_up(pixels, np.zeros((2, 2)))


def test_stamps_of_a_campaign_agree_with_the_sky(campaign: Path) -> None:
    """A source north-east of the middle has to lie up and to the left."""
    for packet in read_alerts(alert_files([campaign]), Choice(limit=3)):
        from astropy.wcs import WCS

        header = fits.getheader(io.BytesIO(packet["cutoutScience"]))
        side, wcs = header["NAXIS1"], WCS(header)
        x, y = (np.asarray(v) for v in wcs.all_world2pix(
            header["CRVAL1"] + 10 * _SCALE / np.cos(np.radians(header["CRVAL2"])),
            header["CRVAL2"] + 5 * _SCALE, 0,
        ))  # fmt: skip
        data = np.zeros((side, side), np.float32)
        data[int(np.rint(y)), int(np.rint(x))] = 1.0
        buffer = io.BytesIO()
        fits.PrimaryHDU(data, header).writeto(buffer)
        (stamp,) = read_stamps({"cutoutScience": buffer.getvalue()})
        row, column = np.argwhere(stamp.pixels == 1.0)[0] - (side - 1) // 2
        assert abs(row - 5) <= 1
        assert abs(column + 10) <= 1


def _predicted(orbit: dict[str, Any], mjd_tai: float) -> np.ndarray:
    """Astrometric direction to a body by its Keplerian elements."""
    eye, delay = observer(mjd_tai)[0], 0.0
    i, node, peri = (np.radians(orbit[name]) for name in ("i", "node", "argperi"))
    turn = _rotation(node, 2) @ _rotation(i, 0) @ _rotation(peri, 2)
    for _ in range(4):
        days = mjd_tai + 32.184 / 86400 - delay - orbit["epoch_mjd"]
        mean = np.radians(orbit["mean_anomaly"] + orbit["mean_motion"] * days)
        anomaly = mean
        for _ in range(20):
            slope = 1 - orbit["e"] * np.cos(anomaly)
            anomaly -= (anomaly - orbit["e"] * np.sin(anomaly) - mean) / slope
        minor = np.sqrt(1 - orbit["e"] ** 2)
        plane = orbit["a"] * np.array([np.cos(anomaly) - orbit["e"], minor * np.sin(anomaly), 0.0])
        line = _rotation(np.radians(23.43928), 0) @ turn @ plane - eye
        delay = np.linalg.norm(line) / 173.14463
    return line / np.linalg.norm(line)


def _rotation(angle: float, axis: int) -> np.ndarray:
    turn = np.roll(np.diag([1.0, np.cos(angle), np.cos(angle)]), (axis, axis), (0, 1))
    j, k = (axis + 1) % 3, (axis + 2) % 3
    turn[j, k], turn[k, j] = -np.sin(angle), np.sin(angle)
    return turn


def test_orbits_in_alerts_lead_to_where_the_body_was_expected(campaign: Path) -> None:
    packets = [p for p in read_alerts(alert_files([campaign])) if p["ssSource"]]
    assert len(packets) > 3
    for packet in packets:
        body, orbit = packet["ssSource"], packet["mpc_orbits"]
        assert orbit["designation"] == body["designation"]
        found = _predicted(orbit, packet["diaSource"]["midpointMjdTai"])
        expected = unit_vectors(body["ephRa"], body["ephDec"])
        assert np.degrees(np.linalg.norm(found - expected)) * 3600 < 0.02


def test_alerts_say_why_the_exposure_was_taken_and_the_catalogue_where_they_are(
    campaign: Path,
) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.rows("SELECT * FROM alert")
    named = {row["diaSourceId"]: row["file"] for row in rows}
    assert {row["file"] is not None for row in rows if row["emitted"]} == {True}
    assert {row["file"] for row in rows if not row["emitted"]} <= {None}
    for path in alert_files([campaign]):
        for packet in read_alerts([path]):
            assert packet["observation_reason"] == "Nightjar simulation"
            assert packet["target_name"].startswith("Blind15A")
            assert campaign / named.pop(packet["diaSourceId"]) == path
    assert set(named.values()) <= {None}


def test_what_cannot_be_read_is_a_hole_with_a_note() -> None:
    no_wcs = io.BytesIO()
    fits.PrimaryHDU(np.ones((5, 5), np.float32)).writeto(no_wcs)
    stamps = read_stamps(
        {"cutoutScience": b"junk", "cutoutTemplate": no_wcs.getvalue(), "cutoutDifference": 3}
    )
    assert [s.note.split(":")[0] for s in stamps] == [
        "cannot be read", "orientation unknown", "is no FITS file",
    ]  # fmt: skip
    assert all(np.isnan(s.pixels).all() for s in (stamps[0], stamps[2]))


def test_a_difference_in_characters_tells_its_sign_and_its_holes() -> None:
    pixels = np.zeros((6, 6))
    pixels[4:, :2], pixels[:2, 4:], pixels[2:4, 2:4] = 60.0, -60.0, np.nan
    lines = stamps_as_text([Stamp("difference", pixels, 1.0)], 6, colour=False)
    assert lines == ["@@    ", "  //  ", "    88"]
    coloured = stamps_as_text([Stamp("difference", pixels, 1.0)], 6, colour=True)
    assert coloured[1].count("\x1b[38;2;204;121;167;48;2;204;121;167m▀") == 2
    assert all(line.endswith("\x1b[0m") for line in coloured)


def test_light_curves_show_every_epoch_once() -> None:
    packet = {
        "diaSource": {"midpointMjdTai": 10.0, "psfFlux": 900.0, "psfFluxErr": 20.0, "band": "g"},
        "prvDiaSources": [{"midpointMjdTai": 8.0, "psfFlux": 500.0, "psfFluxErr": None}],
        "prvDiaForcedSources": [
            {"midpointMjdTai": 8.0, "psfFlux": 480.0, "psfFluxErr": 20.0},
            {"midpointMjdTai": 6.0, "psfFlux": -300.0, "psfFluxErr": 20.0},
            {"midpointMjdTai": 7.0, "psfFlux": None, "psfFluxErr": None},
        ],
        "nightjar": {"noiseLimits": [{"midpointMjdTai": 4.0, "limit": 100.0}]},
    }
    curve = read_curve(packet)
    assert [(e.mjd, e.flux, e.kind) for e in curve] == [
        (4.0, 100.0, "limit"), (6.0, -300.0, "forced"),
        (8.0, 500.0, "source"), (10.0, 900.0, "alert"),
    ]  # fmt: skip
    lines = curve_as_text(curve, 30, 12)
    assert [len(line) for line in lines] == [30] * 12
    drawn = "".join(lines[:-2])
    assert [drawn.count(c) for c in "v.o@"] == [1, 1, 1, 1]
    assert lines[0].rstrip().endswith("@")
    assert next(line for line in lines if "." in line) in lines[7:10]  # below zero
    svg = curve_as_svg(curve)
    assert svg.count("<circle") == 4  # one of them the ring
    assert "no flux" in curve_as_svg([])


def test_bands_of_any_text_are_escaped_in_curves() -> None:
    svg = curve_as_svg([Epoch(1.0, 2.0, 3.0, "<script>", "source")])
    assert "<script>" not in svg


def test_hostile_text_reaches_neither_terminal_nor_page(campaign: Path, tmp_path: Path) -> None:
    packet = _packet(campaign)
    packet["diaSource"]["band"] = "\x1b[31m<img src=x>\u202e"
    text = "\n".join(blocks([packet], width=80))
    assert "\x1b" not in text
    assert "\u202e" not in text

    from harness.alerts.page import write_page
    from harness.alerts.site import write_site

    write_page(tmp_path / "page.html", [packet])
    write_site(tmp_path / "site", [packet])
    pages = [tmp_path / "page.html", *(tmp_path / "site").rglob("*.html")]
    assert len(pages) == 4
    assert not [p for p in pages if "<img src=x>" in p.read_text()]


def test_as_many_alerts_stand_in_a_row_as_fit(campaign: Path) -> None:
    packets = list(read_alerts(alert_files([campaign]), Choice(limit=4)))
    narrow = list(blocks(packets, width=95))
    wide = list(blocks(packets, width=190))
    assert len(narrow) == 2 * len(wide) == 4 * 13
    assert max(map(len, narrow)) <= 95
    assert max(map(len, wide)) <= 190


def test_alerts_are_chosen_and_damaged_files_told(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = alert_files([campaign])
    rows = [summary(p) for p in read_alerts(files)]
    least = float(np.median([r["reliability"] for r in rows if r["reliability"] is not None]))
    chosen = [summary(p) for p in read_alerts(files, Choice(reliability=least))]
    assert chosen == [r for r in rows if r["reliability"] is not None and r["reliability"] >= least]
    assert 0 < len(chosen) < len(rows)
    number = rows[5]["diaSourceId"]
    assert [summary(p) for p in read_alerts(files, Choice(source=number))] == [rows[5]]
    assert "solar system" in {r["class"] for r in rows}

    (tmp_path / "a.avro").write_bytes(files[0].read_bytes()[:-100])
    shutil.copy(files[1], tmp_path / "b.avro")
    assert execute(["alerts", "list", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    expected = sum(1 for _ in read_alerts([files[1]]))
    assert len(captured.err.splitlines()) == 1
    assert "a.avro" in captured.err
    assert sum(str(r["diaSourceId"]) in captured.out for r in rows[-200:]) >= expected


@pytest.mark.parametrize(
    ("row", "more", "expected"),
    [
        ({"ssObjectId": 5, "isDipole": True}, None, "solar system"),
        ({"isDipole": True}, None, "dipole"),
        ({"glint_trail": True}, None, "streak"),
        ({}, [("star", 0.9), ("galaxy", 0.1)], "star"),
        ({}, [("star", 1.1), ("galaxy", 9.0)], "galaxy"),
        ({}, [("galaxy", 11.0)], "other"),
        ({}, None, "other"),
    ],
)  # fmt: skip
def test_classes(row: dict[str, Any], more: list[tuple[str, float]] | None, expected: str) -> None:
    near = [{"objectType": kind, "dist": dist} for kind, dist in more or ()]
    assert class_of({"diaSource": row, "nightjar": {"nearbyObjects": near or None}}) == expected


def test_difference_of_alerts_names_the_field(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(p for p in alert_files([campaign]) if sum(1 for _ in read_alerts([p])) > 2)
    with path.open("rb") as stream:
        reader = fastavro.reader(stream)
        schema, packets = reader.writer_schema, list(reader)
    packets[0]["diaSource"]["psfFlux"] += 1.0
    packets[0]["diaSource"]["timeProcessedMjdTai"] += 1.0
    packets[0]["cutoutScience"] = b"x"
    gone = packets.pop(1)["diaSourceId"]
    with (tmp_path / "b.avro").open("wb") as stream:
        fastavro.writer(stream, schema, packets)

    rows = list(alert_differences([path], [tmp_path / "b.avro"]))
    assert {(r["diaSourceId"], r["field"]) for r in rows} == {
        (packets[0]["diaSourceId"], "diaSource.psfFlux"),
        (packets[0]["diaSourceId"], "cutoutScience"),
        (gone, "alert"),
    }
    assert len(list(alert_differences([path], [tmp_path / "b.avro"], everything=True))) == 4
    assert execute(["alerts", "diff", str(path), str(path)]) == 0
    assert execute(["alerts", "diff", str(path), str(tmp_path / "b.avro")]) == 1
    assert "diaSource.psfFlux" in capsys.readouterr().out


def test_stamps_as_files(campaign: Path, tmp_path: Path) -> None:
    packet = _packet(campaign)
    number = packet["diaSourceId"]
    words = ["alerts", "stamps", str(campaign), "--source", str(number), "-o", str(tmp_path)]
    assert execute(words) == 0
    assert execute([*words, "--fits"]) == 0
    assert (tmp_path / f"{number}_science.fits").read_bytes() == packet["cutoutScience"]
    assert len(list(tmp_path.glob("*.png"))) == 3


# -- the site ------------------------------------------------------------------------------------


def test_nights_are_told_apart_anywhere() -> None:
    hawaii = [57000.25, 57000.45, 57000.62, 57001.38, 57001.6]  # across 12 h UTC
    assert nights_of(hawaii) == [0, 0, 0, 1, 1]
    assert nights_of([]) == []


def test_sky_map_has_north_up_east_left_and_no_edge_at_0h() -> None:
    rows = [
        {"ra": ra % 360, "dec": dec, "page": "p", "diaSourceId": k, "reliability": None}
        for k, (ra, dec) in enumerate([(-0.1, 0.0), (0.1, 0.0), (0.0, 0.1), (0.0, -0.1)])
    ]
    found = re.findall(r'data-id="(\d)" cx="([\d.]+)" cy="([\d.]+)"', sky_map(rows))
    x = {int(k): float(a) for k, a, _ in found}
    y = {int(k): float(b) for k, _, b in found}
    assert x[1] < x[2] == x[3] < x[0]
    assert y[2] < y[0] == y[1] < y[3]
    assert x[0] - x[1] == pytest.approx(y[3] - y[2], abs=0.2)


@pytest.fixture(scope="module")
def site(campaign: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "out"
    assert execute(["alerts", "site", str(campaign), "-o", str(folder)]) == 0
    return folder


def test_site_has_every_alert_and_no_dead_link(site: Path, campaign: Path) -> None:
    numbers = [p["diaSourceId"] for p in read_alerts(alert_files([campaign]))]
    nights = "".join(p.read_text() for p in sorted(site.glob("night_*.html")))
    assert nights.count("<tr data-reliability") == len(numbers)
    assert all(f'data-id="{n}"' in nights for n in numbers)
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "http" not in text.replace("http-equiv", "")
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            path, _, anchor = link.partition("#")
            target = page.parent / path
            assert target.is_file(), (page, link)
            assert not anchor or f'id="{anchor}"' in target.read_text()


def test_site_replaces_only_what_it_made(campaign: Path, site: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    assert execute(["alerts", "site", str(campaign), "-o", str(tmp_path)]) == 2
    assert (tmp_path / "precious").exists()
    first = next(iter(alert_files([campaign])))
    again = tmp_path / "site"
    shutil.copytree(site, again)
    assert execute(["alerts", "site", str(first), "-o", str(again)]) == 0
    assert len(list(again.glob("night_*.html"))) == 1


_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_PROBE = """<script>
const result = {};
const heads = Array.from(document.querySelectorAll("#alerts th button"));
const snr = heads.find((b) => b.textContent === "SNR");
const shown = () => rows.filter((r) => !r.hidden).length;
const column = (k) => Array.from(body.rows, (r) => r.cells[k].textContent);
result.wide = document.documentElement.scrollWidth - window.innerWidth;
result.width = window.innerWidth;
result.broken = Array.from(document.images).filter((i) => i.complete && !i.naturalWidth).length;
snr.click(); result.up = column(6); snr.click(); result.down = column(6);
const slider = document.getElementById("least");
slider.value = "0.9"; slider.dispatchEvent(new Event("input")); result.reliable = shown();
slider.value = "0"; slider.dispatchEvent(new Event("input"));
const kind = document.getElementById("class");
kind.value = "solar system"; kind.dispatchEvent(new Event("input")); result.bodies = shown();
parent.postMessage(JSON.stringify(result), "*");
</script>"""
_FRAME = """<!DOCTYPE html><pre id="result"></pre><script>
addEventListener("message", (e) => { document.getElementById("result").textContent = e.data; });
</script><iframe src="probe.html" width="WIDTH" height="900" style="border:0"></iframe>"""


@pytest.mark.skipif(_CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_site_sorts_filters_and_fits_in_a_browser(site: Path, tmp_path: Path, width: int) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    page, frame = folder / "probe.html", folder / "frame.html"
    page.write_text((site / "index.html").read_text().replace("</body>", f"{_PROBE}</body>"))
    frame.write_text(_FRAME.replace("WIDTH", str(width)))
    done = subprocess.run(
        [str(_CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", frame.as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stdout[-2000:]
    result = json.loads(found.group(1))
    text = (site / "index.html").read_text()
    reliabilities = re.findall(r'data-reliability="([\d.]*)"', text)
    snr = sorted(float(v) for v in result["up"])
    assert result["wide"] <= 0, result
    assert result["width"] == width
    assert not result["broken"]
    assert [float(v) for v in result["up"]] == snr
    assert [float(v) for v in result["down"]] == snr[::-1]
    assert result["reliable"] == sum(float(r or 0) >= 0.9 for r in reliabilities)
    assert result["bodies"] == text.count('data-class="solar system"') > 0


# -- objects and their history -------------------------------------------------------------------


def test_page_of_an_object_and_of_a_body(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        number, n = catalog.fetch(
            "SELECT diaObjectId, nDiaSources FROM DiaObject ORDER BY nDiaSources DESC, 1 LIMIT 1"
        )[0]
        body = catalog.fetch("SELECT ssObjectId FROM SSSource ORDER BY 1 LIMIT 1")[0][0]
        alerted = catalog.fetch(
            "SELECT count(*) FROM alert WHERE emitted AND diaObjectId = ?", [number]
        )[0][0]
    page = tmp_path / "object.html"
    assert execute(["inspect", str(campaign), str(number), "-o", str(page)]) == 0
    assert f"{n} sources" in capsys.readouterr().out
    text = page.read_text()
    assert text.count('class="card"') == alerted
    assert "neighbours" in text
    assert execute(["inspect", str(campaign), str(body), "-o", str(page)]) == 0
    assert execute(["inspect", str(campaign), "77", "-o", str(page)]) == 2
    assert "no object or body 77" in capsys.readouterr().err


def test_history_equals_objects_made_from_what_was_taken_until_then(campaign: Path) -> None:
    from harness.settings import Settings

    config = Settings.load(campaign / "nightjar.toml").diaobject
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        times = [
            r[0] for r in catalog.fetch("SELECT DISTINCT midpointMjdTai FROM DiaSource ORDER BY 1")
        ]
        for mjd in (times[0] - 1, times[1], (times[-2] + times[-1]) / 2, times[-1] + 100):
            known = known_at(catalog, mjd)
            until = "midpointMjdTai <= ? AND diaObjectId IS NOT NULL"
            sources = catalog.query(
                f"SELECT {', '.join(diaobject.HISTORY)} FROM DiaSource WHERE {until}", [mjd]
            ).cast(pa.schema([DIA_SOURCE[n].arrow_field for n in diaobject.HISTORY]))
            forced = catalog.table("DiaForcedSource", f"{until} ORDER BY diaForcedSourceId", [mjd])
            if not sources.num_rows:
                assert not known.objects.num_rows
                continue
            expected = diaobject.summarise(sources, None, 0.0, config)
            expected = diaobject.with_forced(expected, forced)
            assert known.objects.num_rows == expected.num_rows
            for name in expected.column_names:
                if not name.startswith("validity"):
                    assert known.objects[name].equals(expected[name]), (mjd, name)


def test_versions_hold_one_after_the_other(campaign: Path) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        sql = "SELECT diaObjectId FROM DiaObject ORDER BY nDiaSources DESC, 1 LIMIT 1"
        number = catalog.fetch(sql)[0][0]
        rows = versions_of(catalog, number)
        sql = "SELECT midpointMjdTai FROM DiaSource WHERE diaObjectId = ?"
        times = {row[0] for row in catalog.fetch(sql, [number])}
    assert len(rows) > 1
    assert [r["knownUntilMjdTai"] for r in rows[:-1]] == [r["knownFromMjdTai"] for r in rows[1:]]
    assert rows[-1]["knownUntilMjdTai"] is None
    assert {r["knownFromMjdTai"] for r in rows} <= times


def test_history_on_the_command_line(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "objects.csv"
    assert execute(["history", str(campaign), "--as-of", "2015-02-20", "-o", str(out)]) == 0
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        known = known_at(catalog, 57074.0 + 35 / 86400)
    assert len(out.read_text().splitlines()) == known.objects.num_rows + 1
    assert f"{known.objects.num_rows} objects written" in capsys.readouterr().out
    assert execute(["history", str(campaign)]) == 2
    assert execute(["history", str(campaign), "--as-of", "soon"]) == 2
    assert execute(["history", str(campaign), "--object", "77"]) == 2
