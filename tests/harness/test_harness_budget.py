"""The time that a run may take."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.campaign import run as invocation
from harness.campaign.budget import TimeBudget, seconds
from harness.campaign.run import run_campaign
from harness.catalog import Catalog
from harness.cli.main import execute
from harness.ledger import DONE, Outcome, StageRecord, Target
from pipeline.errors import ConfigError
from pipeline.schema import TABLES

STAGES = ("isr", "calibrate")

Contents = Callable[[Path], dict[str, str]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90s", 90),
        ("45m", 2700),
        ("1h30m", 5400),
        ("2h", 7200),
        ("1d", 86400),
        ("02:00:00", 7200),
        ("1-12:00:00", 129600),
        ("1h 30m 5s", 5405),
    ],
)
def test_durations_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0m", "-5", "soon", "1.5h", "5m5h", "10:00", "1:2:3"])
def test_other_words_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="expected 90, 45m"):
        seconds(text)


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _outcome(wall_s: float, units: int = 1) -> Outcome:
    records = [StageRecord(1, n, s, DONE, wall_s=wall_s) for n in range(units) for s in STAGES]
    return Outcome(Target(1, 0), records)


def _catalog(*costs: float) -> Catalog:
    catalog = Catalog(Path(":memory:"))
    rows = [
        StageRecord(1, n, s, DONE, wall_s=cost).row() | {"runId": "r"}
        for n, cost in enumerate(costs)
        for s in STAGES
    ]
    if rows:
        catalog.insert("unit", TABLES["unit"].from_rows(rows))
    return catalog


def test_nothing_is_begun_that_would_not_end() -> None:
    clock, catalog = _Clock(), _catalog(1.0, 4.0)  # the slowest target took 8 s in two stages
    budget = TimeBudget(100.0, clock)

    assert budget.allows(catalog, STAGES, 1)
    assert budget.needed_s == 2 * 8 + 5
    clock.now += 79
    assert budget.allows(catalog, STAGES, 1)
    clock.now += 1
    assert not budget.allows(catalog, STAGES, 1)
    assert budget.allows(catalog, ("alerts",), 1)  # of unknown cost


def test_a_slower_item_is_remembered_per_target() -> None:
    clock, catalog = _Clock(), _catalog()
    budget = TimeBudget(100.0, clock)
    budget.learn(STAGES, _outcome(10.0, units=2), 2)

    assert budget.allows(catalog, STAGES, 2)
    assert budget.needed_s == 2 * 20 * 2 + 5
    assert not budget.allows(catalog, STAGES, 3)


def test_without_a_limit_everything_is_begun() -> None:
    budget = TimeBudget()
    budget.learn(STAGES, _outcome(1e9), 1)
    assert budget.allows(_catalog(1e9), STAGES, 1)


class _Few(TimeBudget):
    """Time for five items."""

    left = 5

    def allows(self, catalog: Catalog, stages: tuple[str, ...], targets: int) -> bool:
        self.left -= 1
        return self.left >= 0


@pytest.mark.slow
def test_a_run_in_short_pieces_ends_with_the_same_tables(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents
) -> None:
    copy = Path(shutil.copytree(campaign, tmp_path / "tiny"))
    (copy / "catalog.duckdb").unlink()
    for name in ("products", "staging", "alerts"):
        shutil.rmtree(copy / name)
    monkeypatch.setattr(invocation, "TimeBudget", _Few)

    codes = []
    while not codes or codes[-1] == 4:
        codes.append(run_campaign(copy, jobs=2, quiet=True).exit_code)
        assert len(codes) < 30

    assert codes == [4] * (len(codes) - 1) + [0]
    assert len(codes) >= 8
    assert contents(copy) == contents(campaign)
    with Catalog(copy / "catalog.duckdb", read_only=True) as catalog:
        assert catalog.value("SELECT max(attempts) FROM unit") == 1


def test_a_limit_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["init", str(tmp_path / "w")]) == 0
    assert execute(["run", str(tmp_path / "w"), "--time-limit", "soon"]) == 2
    assert "is no duration" in capsys.readouterr().err
