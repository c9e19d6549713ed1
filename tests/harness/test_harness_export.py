"""Light curves and regions for other tools."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.catalog import Catalog
from harness.cli.main import execute


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["DiaSource", "x.parquet", "--lightcurves"], "light curves go with DiaObject"),
        (["DiaObject", "x.csv", "--lightcurves"], "light curves go with DiaObject"),
        (["unit", "x.reg"], "no positions for regions"),
        (["DiaObject", "x.doc"], "parquet, votable, csv, regions"),
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
