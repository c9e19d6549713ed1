from __future__ import annotations

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.catalog import Catalog
from harness.cli.main import execute
from harness.system.hashes import file_hash, table_hash

SOAK = bool(os.environ.get("NIGHTJAR_SOAK"))
TABLES = ("DiaSource", "DiaObject", "DiaObjectHistory", "DiaForcedSource", "SSSource", "SSObject",
          "DiaObject_To_Object_Match", "DiaObjectLast", "alert", "candidate", "template",
          "template_input", "metric", "difference_image", "visit_image",
          )  # fmt: skip


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny workspace with raw frames, not run; copy it before changing it."""

    def make(root: Path) -> None:
        assert execute(["init", str(root), "--profile", "tiny"]) == 0
        assert execute(["sim", str(root), "-q", "-j", "2"]) == 0

    return made_once("simulated", make, tmp_path_factory)


@pytest.fixture(scope="session")
def survey(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw frames that every engine runs: those of ``ci`` in ``make soak``."""
    return _simulated_ci(tmp_path_factory) if SOAK else simulated


@pytest.fixture(scope="session")
def survey_contents(
    survey: Path, campaign: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the survey's run on two local workers leaves, see `contents`."""
    if not SOAK:
        return _contents(campaign)
    root = Path(shutil.copytree(survey, tmp_path_factory.mktemp("two") / "ci"))
    assert execute(["run", str(root), "-q", "-j", "2"]) == 0
    found = _contents(root)
    shutil.rmtree(root)  # 3 GB
    return found


def _simulated_ci(factory: pytest.TempPathFactory) -> Path:
    root = factory.mktemp("simulated") / "ci"
    assert execute(["init", str(root), "--profile", "ci"]) == 0
    assert execute(["sim", str(root), "-q", "-j", "2"]) == 0
    return root


@pytest.fixture(scope="session")
def campaign(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same workspace after a run."""

    def make(root: Path) -> None:
        shutil.copytree(simulated, root)
        assert execute(["run", str(root), "-q", "-j", "2"]) == 0

    return made_once("run", make, tmp_path_factory)


def made_once(name: str, make: Callable[[Path], None], factory: pytest.TempPathFactory) -> Path:
    """A workspace that the first of the processes of a test run makes; each has a copy."""
    own = factory.mktemp(name) / "tiny"
    if "PYTEST_XDIST_WORKER" not in os.environ:
        make(own)
        return own
    shared = factory.getbasetemp().parent / name / "tiny"
    shared.parent.mkdir(exist_ok=True)
    with (shared.parent / "made").open("a+") as made:
        fcntl.flock(made, fcntl.LOCK_EX)
        made.seek(0)
        if not made.read():
            shutil.rmtree(shared, ignore_errors=True)
            make(shared)
            made.write("whole")
    return Path(shutil.copytree(shared, own))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Heed SIGINT, here and in new processes, where a shell's background job ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Hashes of all rows and products; what is volatile (times, run ids) left out."""
    return _contents


def _contents(root: Path) -> dict[str, str]:
    found = {}
    with Catalog(root / "catalog.duckdb", read_only=True) as catalog:
        for name in TABLES:
            drop = {"runId", "timeProcessedMjdTai"}
            table = catalog.query(f'SELECT * FROM "{name}" ORDER BY ALL')
            kept = [c for c in table.column_names if c not in drop and not c.startswith("validity")]
            columns = ", ".join(f'"{c}"' for c in kept)
            rows = catalog.query(f'SELECT {columns} FROM "{name}" ORDER BY ALL')
            found[name] = f"{rows.num_rows} {table_hash(rows)}"
    for path in sorted((root / "products").rglob("*.fits")):
        found[str(path.relative_to(root))] = file_hash(path)
    return found
