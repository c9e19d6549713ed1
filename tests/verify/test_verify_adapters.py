"""Products that were made elsewhere are judged by the same cases; what they lack is no fault."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.verify.adapters import ForeignContext, rubin
from harness.verify.engine import judge_check
from harness.verify.loader import load_spec
from harness.verify.packets import containers
from harness.verify.verdict import Verdict
from harness.workspace import Workspace
from pipeline.errors import FileFormatError, InputError

CHECKS = {f"{c.id}/{i.id}/{k.id}": k for c, i, k in load_spec().checks()}


@pytest.fixture
def tables(space: Workspace, tmp_path: Path) -> Path:
    """Sources and objects of the small campaign in the layout of an APDB."""
    from harness.catalog import Catalog

    folder = tmp_path / "apdb"
    (folder / "DiaObject").mkdir(parents=True)
    with Catalog(space.catalog, read_only=True) as catalog:
        sources = catalog.query("select * from DiaSource")
        objects = catalog.query("select * from DiaObject")
    sources = sources.drop_columns(["isSubThreshold", "isDeblendParent"])
    nothing = pa.array([0] * sources.num_rows, pa.int64())
    sources = sources.set_column(
        sources.column_names.index("ssObjectId"), "ssObjectId", nothing
    ).rename_columns({"psfFlux": "psFlux"})
    pq.write_table(sources, folder / "DiaSource.parquet")
    pq.write_table(objects, folder / "DiaObject" / "part-0.parquet")
    return folder


def judged(folder: Path, tmp_path: Path, *paths: str) -> list[tuple[Verdict, str]]:
    with closing(rubin(folder, tmp_path / "made", jobs=1)) as context:
        results = [judge_check(p, CHECKS[p], context) for p in paths]
    return [(r.verdict, r.reason) for r in results]


def test_tables_of_others_are_judged_by_the_same_checks(tables: Path, tmp_path: Path) -> None:
    found = judged(
        tables, tmp_path, "AG-00-25/unique/sources", "AG-00-25/counts/equals-children",
        "AG-00-25/membership/object-exists",
    )  # fmt: skip

    assert [v for v, _ in found] == [Verdict.PASS] * 3


def test_a_defect_in_tables_of_others_is_found(tables: Path, tmp_path: Path) -> None:
    path = tables / "DiaSource.parquet"
    rows = pq.read_table(path)
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), path)

    found = judged(tables, tmp_path, "AG-00-25/unique/sources", "AG-00-25/counts/equals-children")

    assert [v for v, _ in found] == [Verdict.FAIL] * 2


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("AG-00-05/run/done", "lack what is asked for: .*unit"),
        ("AG-00-10/components/trimmed", "no images"),
        ("AG-00-05/campaign/log-audit", "without what a check of log examines"),
        ("AG-00-25/unique/packed", "made elsewhere"),
        ("AG-00-30/content/assertions", "without alert packets"),
        ("AG-00-20/faint/kept-apart", "hold nothing that this is said of"),
    ],
)
def test_what_is_not_there_is_not_applicable(
    tables: Path, tmp_path: Path, path: str, words: str
) -> None:
    import re

    ((verdict, reason),) = judged(tables, tmp_path, path)

    assert verdict == Verdict.NOT_APPLICABLE
    assert re.search(words, reason)


def test_a_folder_without_products_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither tables nor alert packets"):
        rubin(tmp_path, tmp_path / "made")


def test_a_broken_table_is_named(tables: Path, tmp_path: Path) -> None:
    (tables / "DiaSource.parquet").write_bytes(b"PAR1 no more")

    with pytest.raises(FileFormatError, match=r"DiaSource\.parquet"):
        rubin(tables, tmp_path / "made")


def test_real_packets_are_judged(rubin_alerts: Path, tmp_path: Path) -> None:
    with closing(rubin(rubin_alerts, tmp_path / "made", jobs=1)) as context:
        assert isinstance(context, ForeignContext)
        packets = judge_check(
            "AG-00-30/content/assertions", CHECKS["AG-00-30/content/assertions"], context
        )
        read = sum(c.check.alerts for c in containers(context).values() if c.check)
        fluxes = judge_check(
            "AG-00-20/derived/reduced-chi2", CHECKS["AG-00-20/derived/reduced-chi2"], context
        )

    assert packets.verdict == Verdict.FAIL
    assert packets.measurement is not None
    assert read == 7
    assert {"cutouts-wcs"} <= {f["assertion"] for f in packets.measurement.failing}
    assert fluxes.verdict == Verdict.PASS
