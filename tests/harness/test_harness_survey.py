"""A whole survey by every engine: equal rows and products; `ci` in ``make soak``, else `tiny`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.conftest import SOAK
from tests.harness.test_harness_cluster import (
    NIGHTJAR,
    attempts,
    dask_workers,
    differences,
    start,
    wait_until,
)
from tests.harness.test_harness_slurm import slurm  # noqa: F401

pytestmark = pytest.mark.slow

Contents = Callable[[Path], dict[str, str]]
LIMIT_S = 3600.0 if SOAK else 900.0
LEASE_S = 30 if SOAK else 5


@pytest.fixture
def root(survey: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the survey's raw frames, removed afterwards: a run of `ci` leaves 3 GB."""
    yield Path(shutil.copytree(survey, tmp_path / "survey"))
    shutil.rmtree(tmp_path / "survey")


@pytest.mark.parametrize("jobs", [1, 4])
def test_by_local_workers(
    jobs: int, root: Path, survey_contents: dict[str, str], contents: Contents
) -> None:
    assert start(root, "-q", "-j", str(jobs)).wait(LIMIT_S) == 0

    assert contents(root) == survey_contents
    assert attempts(root) == [1]


@pytest.mark.skipif(not SOAK, reason="tiny is run by Dask in test_harness_cluster")
def test_by_dask_with_one_of_two_workers_killed(
    root: Path, survey_contents: dict[str, str], contents: Contents
) -> None:
    run = start(root, "-q", "--dask", "local:2")
    wait_until(lambda: differences(root) >= 5, LIMIT_S)
    os.kill(dask_workers(run.pid)[0], signal.SIGKILL)

    assert run.wait(LIMIT_S) == 0
    assert contents(root) == survey_contents
    assert attempts(root) == [1, 2]


def test_by_a_job_array_of_slurm_with_one_job_cancelled(
    slurm: dict[str, str],  # noqa: F811
    root: Path,
    survey_contents: dict[str, str],
    contents: Contents,
    tmp_path: Path,
) -> None:
    job = tmp_path / "work.sh"
    job.write_text(f"#!/bin/sh\nexec {' '.join(NIGHTJAR)} work {root}\n", encoding="utf-8")
    submit = ["sbatch", "--parsable", "--time=60", "--mem=2500", f"--output={tmp_path}/%j.out"]
    run = start(root, "-q", "--claims", "--set", f"execution.lease={LEASE_S}")
    first, _ = (
        subprocess.run([*submit, str(job)], env=slurm, check=True, capture_output=True, text=True)
        for _ in range(2)
    )
    wait_until(lambda: differences(root) >= 2, LIMIT_S)
    subprocess.run(["scancel", first.stdout.strip()], env=slurm, check=True)

    assert run.wait(LIMIT_S) == 0
    assert contents(root) == survey_contents
    assert set(attempts(root)) <= {1, 2}
