"""A catalogue of another version: brought up to date, shown as if it were, or one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from harness.catalog import Catalog, GuardedCatalog, connect
from harness.catalog.views import VIEWS
from harness.cli.main import execute
from harness.settings import Settings
from harness.system.software import software_version
from harness.workspace import Workspace
from pipeline.errors import ConfigError
from pipeline.schema import SCHEMA_VERSION, TABLES

PREDECESSOR = (Path(__file__).parent / "data" / "catalog_v1.sql").read_text(encoding="utf-8")
_SOME = {"str": "x", "bool": False, "time": None}

Make = Callable[..., Path]


def filled(table: str) -> pa.Table:
    """One row of a table with its required columns only."""
    required = {c.name: _SOME.get(c.dtype, 7) for c in TABLES[table].columns if not c.nullable}
    return TABLES[table].from_rows([required])


def changed(old: str, new: str, table: str = "DiaSource") -> str:
    """Return the predecessor's statements with one line of one table replaced."""
    head, body = PREDECESSOR.split(f'CREATE TABLE IF NOT EXISTS "{table}" (', 1)
    assert body.index(old) < body.index(");")
    return f'{head}CREATE TABLE IF NOT EXISTS "{table}" ({body.replace(old, new, 1)}'


@pytest.fixture
def old(tmp_path: Path) -> Make:
    """Make an older catalogue from statements, with one row in each of some tables."""

    def make(sql: str = PREDECESSOR, rows: tuple[str, ...] = ("DiaSource", "DiaObject")) -> Path:
        space = Workspace.create(tmp_path / "w")
        Settings().save(space.config)
        with connect(space.catalog) as connection:
            for statement in sql.split(";\n"):
                connection.execute(statement)
            for name in rows:
                required = [c.name for c in TABLES[name].columns if not c.nullable]
                connection.register("given", filled(name).select(required))
                connection.execute(f'INSERT INTO "{name}" BY NAME SELECT * FROM given')
                connection.unregister("given")
        return space.catalog

    return make


def later(path: Path) -> None:
    with Catalog(path) as catalog:
        catalog.fetch(f"INSERT INTO catalog_version VALUES ({SCHEMA_VERSION + 1}, '9.9', 70000.0)")


def columns(catalog: Catalog) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in catalog.rows("SELECT table_name, column_name FROM duckdb_columns()"):
        found.setdefault(row["table_name"], set()).add(row["column_name"])
    return found


def test_a_new_catalogue_knows_its_version(tmp_path: Path) -> None:
    for _ in range(2):
        with Catalog(tmp_path / "c.duckdb") as catalog:
            (row,) = catalog.rows("SELECT schemaVersion, softwareVersion FROM catalog_version")
            assert row == {"schemaVersion": SCHEMA_VERSION, "softwareVersion": software_version()}


def test_the_predecessors_catalogue_is_brought_up_to_date_once(old: Make) -> None:
    path = old()
    for _ in range(2):
        with Catalog(path) as catalog:
            assert catalog.fetch("SELECT schemaVersion FROM catalog_version") == [(SCHEMA_VERSION,)]
            found = columns(catalog)
            assert {n: found[n] for n in TABLES} == {n: set(t.names) for n, t in TABLES.items()}
            assert catalog.table("DiaSource").equals(filled("DiaSource"))
            assert [catalog.count(view) for view in VIEWS] == [1, 0, 0, 1]


@pytest.mark.parametrize("kind", [lambda p: Catalog(p, read_only=True), GuardedCatalog])
def test_the_predecessors_catalogue_is_read_and_left_alone(
    old: Make, kind: Callable[[Path], Catalog]
) -> None:
    path = old()
    before = path.read_bytes()
    with kind(path) as catalog:
        assert catalog.table("DiaSource").equals(filled("DiaSource"))
        assert catalog.count("catalog_version") == 0
        assert [catalog.count(view) for view in VIEWS] == [1, 0, 0, 1]
    assert path.read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True], ids=["written", "read"])
@pytest.mark.parametrize(
    ("before", "after"),
    [('  "snr" FLOAT,\n', ""), ('"snr" FLOAT', '"snr" FLOAT,\n  "gone" DOUBLE')],
    ids=["added", "removed"],
)
def test_columns_come_and_go(old: Make, before: str, after: str, read_only: bool) -> None:
    path = old(changed(before, after))
    with Catalog(path, read_only=read_only) as catalog:
        assert catalog.table("DiaSource").equals(filled("DiaSource"))
        assert catalog.value("SELECT snr FROM DiaSource") is None
        assert catalog.count("diasource_derived") == 1


@pytest.mark.parametrize("read_only", [False, True], ids=["written", "read"])
def test_a_type_is_widened(old: Make, read_only: bool) -> None:
    path = old(changed('"nDiaSources" INTEGER', '"nDiaSources" SMALLINT', "DiaObject"))
    with Catalog(path, read_only=read_only) as catalog:
        assert catalog.table("DiaObject").equals(filled("DiaObject"))
        assert catalog.value("SELECT typeof(nDiaSources) FROM DiaObject") == "INTEGER"


@pytest.mark.parametrize(
    "statement",
    [
        changed('"snr" FLOAT', '"snr" FLOAT NOT NULL'),
        changed('"snr"', '"x0" DOUBLE NOT NULL,"snr"'),
    ],
    ids=["declared", "undeclared"],
)
def test_what_may_be_missing_now_may_be_missing(old: Make, statement: str) -> None:
    with Catalog(old(statement, rows=())) as catalog:
        catalog.insert("DiaSource", filled("DiaSource"))
        assert catalog.count("DiaSource") == 1


REFUSED = {
    "type": (changed('"snr" FLOAT', '"snr" VARCHAR'), "column snr is VARCHAR there and FLOAT now"),
    "required": (changed('  "visit" BIGINT NOT NULL,\n', ""), "column visit is required now"),
}
REKEYED = changed('PRIMARY KEY ("diaSourceId")', 'PRIMARY KEY ("visit", "detector")')


@pytest.mark.parametrize("read_only", [False, True], ids=["written", "read"])
def test_a_changed_type_is_refused_where_there_are_rows(old: Make, read_only: bool) -> None:
    sql, said = REFUSED["type"]
    with pytest.raises(ConfigError, match=f"table DiaSource .*{said}.*in a new workspace"):
        Catalog(old(sql), read_only=read_only)


def test_another_key_is_refused_where_there_are_rows_and_does_not_matter_to_readers(
    old: Make,
) -> None:
    path = old(REKEYED)
    with pytest.raises(ConfigError, match=r"its key is \(visit, detector\) there and \(diaSource"):
        Catalog(path)
    with Catalog(path, read_only=True) as catalog:
        assert catalog.count("DiaSource") == 1


@pytest.mark.parametrize("sql", [REFUSED["type"][0], REKEYED], ids=["type", "key"])
def test_an_empty_table_is_made_again(old: Make, sql: str) -> None:
    path = old(sql, rows=("DiaObject",))
    with Catalog(path, read_only=True) as catalog:
        assert catalog.table("DiaSource").num_rows == 0
    with Catalog(path) as catalog:
        catalog.insert("DiaSource", filled("DiaSource"))
        assert catalog.table("DiaSource").equals(filled("DiaSource"))
        assert catalog.count("DiaObject") == 1


def test_a_refused_upgrade_changes_nothing(old: Make) -> None:
    path = old(REFUSED["type"][0])
    with connect(path, read_only=True) as connection:
        before = connection.execute("SELECT * FROM duckdb_columns()").fetchall()
    with pytest.raises(ConfigError):
        Catalog(path)
    with connect(path, read_only=True) as connection:
        assert connection.execute("SELECT * FROM duckdb_columns()").fetchall() == before


@pytest.mark.parametrize("read_only", [False, True], ids=["written", "read"])
def test_a_later_catalogue_is_refused(old: Make, read_only: bool) -> None:
    path = old()
    later(path)
    with pytest.raises(
        ConfigError, match=r"written by nightjar 9\.9, is later .* nightjar 9\.9 or"
    ):
        Catalog(path, read_only=read_only)


def test_what_is_no_catalogue_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.duckdb"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match="cannot be opened"):
        Catalog(path)


COMMANDS = {
    "status": ["status", "{root}"],
    "status --json": ["status", "{root}", "--json"],
    "export": ["export", "{root}", "DiaSource", "{root}/s.csv"],
    "explain": ["explain", "{root}", "7"],
    "inspect": ["inspect", "{root}", "7", "7", "{root}/i.png"],
    "run": ["run", "{root}", "-q"],
    "run --dry-run": ["run", "{root}", "--dry-run"],
    "verify": ["verify", "{root}", "--check", "AG-00-20", "-j", "1"],
    "doctor": ["doctor", "{root}"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=list(COMMANDS))
@pytest.mark.parametrize("version", ["older", "later", "unfit"])
def test_no_command_breaks(
    old: Make, capsys: pytest.CaptureFixture[str], arguments: list[str], version: str
) -> None:
    path = old(REFUSED["type"][0] if version == "unfit" else PREDECESSOR)
    if version == "later":
        later(path)

    code = execute([a.format(root=path.parent) for a in arguments])

    assert code in (0, 1, 2, 4)
    if version == "older" and arguments[0] in ("status", "export", "explain"):
        assert code == 0
    if version == "later" and arguments[0] in ("status", "export", "explain", "inspect"):
        assert code == 2
        assert capsys.readouterr().err.count("\n") == 1
