"""Light curves and regions for other tools."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import Latitude, Longitude

from harness.catalog import Catalog
from harness.cli.main import execute
from harness.export import sky


def test_objects_with_their_light_curves(campaign: Path, tmp_path: Path) -> None:
    path = tmp_path / "objects.parquet"
    assert execute(["export", str(campaign), "DiaObject", str(path), "--lightcurves",
                    "--where", "nDiaSources > 1"]) == 0  # fmt: skip
    table = pq.read_table(path)
    assert table.schema.field("ra").metadata[b"unit"] == b"deg"
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.rows("SELECT * FROM lightcurve ORDER BY midpointMjdTai, kind, detector")
        numbers = catalog.fetch("SELECT diaObjectId FROM DiaObject WHERE nDiaSources > 1")
    assert sorted(table["diaObjectId"].to_pylist()) == sorted(n[0] for n in numbers)
    for number, curve in zip(
        table["diaObjectId"].to_pylist(), table["lightcurve"].to_pylist(), strict=True
    ):
        its = [row for row in rows if row["diaObjectId"] == number]
        assert len(its) > 1
        assert curve == [{k: v for k, v in row.items() if k in curve[0]} for row in its]


def test_regions_show_objects_and_outlines(campaign: Path, tmp_path: Path) -> None:
    objects, images = tmp_path / "objects.reg", tmp_path / "images.reg"
    assert execute(["export", str(campaign), "DiaObject", str(objects)]) == 0
    assert execute(["export", str(campaign), "visit_image", str(images)]) == 0
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        places = catalog.fetch("SELECT diaObjectId, ra, dec FROM DiaObject")
        n = catalog.fetch("SELECT count(*) FROM visit_image WHERE llcra IS NOT NULL")[0][0]
    circle = r'circle\(([\d.]+),([-\d.]+),2"\) # text=\{(\d+)\}'
    found = {
        int(m[3]): (float(m[1]), float(m[2])) for m in re.finditer(circle, objects.read_text())
    }
    assert set(found) == {number for number, *_ in places}
    assert all(found[number] == pytest.approx((ra, dec), abs=1e-7) for number, ra, dec in places)
    assert len(re.findall(r"^polygon\((?:[-\d.]+,){7}[-\d.]+\)", images.read_text(), re.M)) == n > 0


def test_a_hats_catalogue_has_every_object_with_its_light_curve(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdshealpix = pytest.importorskip("cdshealpix")
    monkeypatch.setattr(sky, "_MOST_ROWS", 20)
    root, flat = tmp_path / "hats", tmp_path / "flat.parquet"
    words = ["export", str(campaign), "DiaObject"]
    assert execute([*words, str(root), "--hats"]) == 0
    assert execute([*words, str(flat), "--lightcurves"]) == 0
    said = dict(line.split("=", 1) for line in (root / "properties").read_text().splitlines())
    rows = []
    for order, cell in csv.reader((root / "partition_info.csv").read_text().splitlines()[1:]):
        folder = f"dataset/Norder={order}/Dir={int(cell) // 10000 * 10000}"
        part = pq.read_table(root / folder / f"Npix={cell}.parquet", partitioning=None)
        index = np.asarray(part["_healpix_29"])
        assert part.num_rows <= 20 or int(order) == 11
        assert (np.diff(index) >= 0).all()
        assert set(index >> (2 * (29 - int(order)))) == {int(cell)}
        place = (Longitude(part["ra"], unit="deg"), Latitude(part["dec"], unit="deg"))
        assert (cdshealpix.lonlat_to_healpix(*place, 29) == index).all()
        rows += part.to_pylist()
    assert len(rows) == int(said["hats_nrows"]) == pq.read_table(flat).num_rows
    assert pq.read_metadata(root / "dataset/_metadata").num_rows == len(rows)
    made = {row["diaObjectId"]: row["lightcurve"] for row in rows}
    for row in pq.read_table(flat).to_pylist():
        curve = made[row["diaObjectId"]]
        assert row["lightcurve"] == [
            dict(zip(curve, epoch, strict=True)) for epoch in zip(*curve.values(), strict=True)
        ]
    assert execute([*words, str(root), "--hats"]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flat.parquet", "hats"]


def test_a_coverage_map_is_that_of_the_images(campaign: Path, tmp_path: Path) -> None:
    mocpy = pytest.importorskip("mocpy")
    for name in ("visit_image", "DiaObject"):
        path = tmp_path / f"{name}.fits"
        assert execute(["export", str(campaign), name, str(path)]) == 0
    images, objects = (mocpy.MOC.from_fits(path) for path in sorted(tmp_path.iterdir())[::-1])
    assert 0 < objects.sky_fraction < images.sky_fraction
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        places = np.array(catalog.fetch("SELECT ra, dec FROM DiaObject"))
        middles = np.array(catalog.fetch("SELECT ra, dec FROM visit_image"))
    assert objects.contains_lonlat(*(places.T * u.deg)).all()
    assert images.contains_lonlat(*(middles.T * u.deg)).all()
    assert not images.contains_lonlat(middles[:, 0] * u.deg, (middles[:, 1] + 3.0) * u.deg).any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["DiaSource", "x.parquet", "--lightcurves"], "light curves go with DiaObject"),
        (["DiaObject", "x.csv", "--lightcurves"], "light curves go with DiaObject"),
        (["unit", "x.reg"], "no positions for regions"),
        (["DiaSource", "x", "--hats"], "light curves go with DiaObject"),
        (["unit", "x.fits"], "no positions for a map"),
        (["DiaObject", "x.doc"], "parquet, votable, csv, regions, moc"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    table, name, *more = words
    assert execute(["export", str(campaign), table, str(tmp_path / name), *more]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_fluxes_at_given_places_are_those_of_the_objects_there(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "psfFlux, psfFluxErr, scienceFlux, scienceFluxErr, psfChi2, psfNdata"
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        known = catalog.rows(
            f"""SELECT diaForcedSourceId AS id, ra, dec, visit, detector, {names}
            FROM DiaForcedSource ORDER BY hash(diaForcedSourceId) LIMIT 12"""
        )
        times = dict(
            catalog.fetch("""SELECT (d.visit, d.detector), t.lastMjdTai FROM difference_image d
            JOIN template t USING (templateId)""")
        )
    lines = [f"{row['id']},{row['ra']!r},{row['dec']!r}" for row in known]
    lines.append("nowhere,10:00:00,-88:00:00")  # half in degrees, half in hours: refused
    places, output = tmp_path / "places.csv", tmp_path / "fluxes.parquet"
    places.write_text("\n".join(["id,ra,dec", *lines]))
    assert execute(["force", str(campaign), "--at", str(places), "-o", str(output)]) == 2
    assert "places.csv" in capsys.readouterr().err
    places.write_text("\n".join(["name,RA,Dec", *lines[:-1], "nowhere,150.0,-88.0"]))
    assert execute(["force", str(campaign), "--at", str(places), "-o", str(output)]) == 0
    table = pq.read_table(output)
    rows = {(row["id"], row["visit"], row["detector"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    for row in known:
        mine = rows[str(row["id"]), row["visit"], row["detector"]]
        assert {k: mine[k] for k in names.split(", ")} == {k: row[k] for k in names.split(", ")}
        assert mine["templateLastMjdTai"] == times[row["visit"], row["detector"]]
    assert "nowhere" not in table["id"].to_pylist()
    assert table.schema.field("psfFlux").metadata[b"unit"] == b"nJy"
    assert capsys.readouterr().out.startswith(f"{table.num_rows} fluxes at 13 places in ")
