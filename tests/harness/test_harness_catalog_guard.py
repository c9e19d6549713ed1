"""What SQL from a case file or a command line may do: read the catalogue, within a time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from harness.catalog import Catalog, GuardedCatalog, QueryError, require_select
from harness.cli.main import execute
from harness.workspace import Workspace
from pipeline import io

ENDLESS = "SELECT count(*) FROM range(100000000000) a, range(1000000) b WHERE a.range % 7 = b.range"
OTHER_STATEMENTS = {
    "INSERT": "INSERT INTO unit (visit) VALUES (1)",
    "UPDATE": "UPDATE unit SET visit = 2",
    "DELETE": "DELETE FROM unit",
    "DROP": "DROP TABLE unit",
    "CREATE": "CREATE TEMP TABLE t (a INTEGER)",
    "ATTACH": "ATTACH 'other.duckdb'",
    "COPY": "COPY unit TO 'unit.csv'",
    "LOAD": "INSTALL httpfs",
    "SET": "SET enable_external_access = true",
    "SELECT and DROP": "SELECT 1; DROP TABLE unit",
    "empty": " ",
}
OUTSIDE = {
    "read_csv": "SELECT * FROM read_csv('/etc/passwd')",
    "read_text": "SELECT * FROM read_text('/etc/passwd')",
    "glob": "SELECT * FROM glob('/etc/*')",
    "by name": "SELECT * FROM '/etc/passwd.csv'",
    "network": "SELECT * FROM read_parquet('https://localhost:1/a.parquet')",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.duckdb"
    Catalog(path).close()
    return path


@pytest.mark.parametrize(("kind", "sql"), OTHER_STATEMENTS.items(), ids=list(OTHER_STATEMENTS))
def test_only_one_select_is_taken(file: Path, kind: str, sql: str) -> None:
    with GuardedCatalog(file) as catalog:
        for ask in (catalog.query, catalog.fetch, catalog.rows, catalog.value):
            with pytest.raises(QueryError, match=f"is {kind}; expected one SELECT"):
                ask(sql)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_what_is_not_sql_is_said_in_one_line() -> None:
    with pytest.raises(QueryError, match="is not SQL") as caught:
        require_select("SELECT FROM WHERE")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sql", OUTSIDE.values(), ids=list(OUTSIDE))
def test_nothing_outside_the_catalogue_is_read(file: Path, sql: str) -> None:
    with GuardedCatalog(file) as catalog, pytest.raises(QueryError, match="and nothing else"):
        catalog.query(sql)


def test_settings_stay_as_they_are(file: Path) -> None:
    with GuardedCatalog(file) as catalog:
        assert catalog.value("SELECT current_setting('enable_external_access')") is False
        assert catalog.value("SELECT current_setting('lock_configuration')") is True


def test_files_and_tables_handed_in_are_seen(file: Path, tmp_path: Path) -> None:
    truth = tmp_path / "it's truth.parquet"
    io.write_parquet(truth, pa.table({"flux": [1.0, 2.0]}))
    files = {"truth": truth, "absent": tmp_path / "absent.parquet"}
    tables = {"promised": pa.table({"visit": [7]})}

    with GuardedCatalog(file, files=files, tables=tables) as catalog:
        assert catalog.value("SELECT sum(flux) FROM truth") == 3.0
        assert catalog.value("SELECT visit FROM promised") == 7
        with pytest.raises(QueryError, match="and nothing else"):
            catalog.query(f"SELECT * FROM read_parquet('{tmp_path}/other.parquet')")


def test_variables_of_the_program_are_no_tables(file: Path) -> None:
    secret = pa.table({"a": [1]})
    with GuardedCatalog(file) as catalog, pytest.raises(Exception, match="secret does not exist"):
        catalog.query("SELECT * FROM secret")
    assert secret.num_rows == 1


def test_an_endless_query_is_stopped_and_the_next_one_runs(file: Path) -> None:
    with GuardedCatalog(file, time_limit=0.2) as catalog:
        for ask in (catalog.query, catalog.fetch):
            with pytest.raises(QueryError, match=r"was stopped after 0\.2 s"):
                ask(ENDLESS)
        assert catalog.value("SELECT 1") == 1


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("true; DROP TABLE unit", "is SELECT and DROP"),
        ("visit IN (SELECT 1 FROM read_csv('/etc/passwd'))", "and nothing else"),
        ("visit IN (SELECT", "is not SQL"),
        ("no_such_column = 1", "no_such_column"),
    ],
)
def test_export_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, said: str
) -> None:
    root = tmp_path / "w"
    space = Workspace.create(root)
    space.config.touch()
    Catalog(space.catalog).close()

    code = execute(["export", str(root), "unit", str(tmp_path / "u.csv"), "--where", where])

    assert code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "u.csv").exists()


def test_an_endless_export_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.catalog.guard.TIME_LIMIT", 0.2)
    root = tmp_path / "w"
    space = Workspace.create(root)
    space.config.touch()
    with Catalog(space.catalog) as catalog:
        catalog.fetch("INSERT INTO unit (visit, detector, stage, status) VALUES (1, 1, 'isr', 'x')")

    code = execute(
        ["export", str(root), "unit", str(tmp_path / "u.csv"), "--where", f"visit = ({ENDLESS})"]
    )

    assert code == 2
    assert "was stopped after 0.2 s" in capsys.readouterr().err
