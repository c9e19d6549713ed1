"""Alerts and campaigns made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.catalog import Catalog
from harness.cli.main import execute


def an_alert(root: Path) -> tuple[int, str]:
    """Return an alert with some history, and its file."""
    with Catalog(root / "catalog.duckdb", read_only=True) as catalog:
        sql = (
            "SELECT diaSourceId, visit, detector FROM alert WHERE emitted ORDER BY nHistory DESC, 1"
        )
        row = catalog.rows(sql)[0]
    return row["diaSourceId"], f"alerts/{row['visit']}_{row['detector']:02d}.avro"


@pytest.mark.slow
def test_alert_is_made_again_from_raw_byte_by_byte(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number, name = an_alert(campaign)
    kept = tmp_path / "again.avro"
    assert execute(["rerun", str(number), "-w", str(campaign), "-o", str(kept)]) == 0
    assert "identical" in capsys.readouterr().out
    assert kept.read_bytes() == (campaign / name).read_bytes()


@pytest.mark.slow
def test_what_differs_on_the_way_to_an_alert_is_named(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(campaign, tmp_path / "tiny"))
    number, name = an_alert(copy)
    alerts = copy / name
    alerts.write_bytes(alerts.read_bytes()[:-1] + b"x")
    assert execute(["rerun", str(number), "-w", str(copy)]) == 1
    text = capsys.readouterr().out
    assert f"differs: {name}: bytes differ" in text
    assert f"{name} was changed" in text
    assert text.count("differs:") == 1


def test_alert_that_is_not_there_is_one_line(
    campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["rerun", "17", "-w", str(campaign)]) == 2
    assert "there is no alert 17" in capsys.readouterr().err


@pytest.mark.slow
def test_campaign_made_again_has_the_same_catalogue(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "again"
    assert execute(["rerun", str(campaign), str(into), "-q", "-j", "2"]) == 0
    assert "identical" in capsys.readouterr().out
    assert len(list((into / "products").rglob("*.fits"))) == 24
    assert execute(["rerun", str(campaign), str(into), "-q"]) == 2  # it is there already
