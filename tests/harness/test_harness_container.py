"""The entry point of the container: whose files are written, and where compiled code lies."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docker-entrypoint.sh"
NIGHTJAR = '#!/bin/sh\necho "$(id -u):$(id -g) $HOME $NUMBA_CACHE_DIR $*"\n'

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another"
)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder open to all with a program that says who runs it, and a cache."""
    folder = Path(os.path.realpath(tmp_path))
    for path in (folder, *folder.parents):
        if str(path).startswith("/tmp/"):
            path.chmod(0o755)
    script, program = folder / "entrypoint", folder / "bin" / "nightjar"
    shutil.copy(SCRIPT, script)
    program.parent.mkdir()
    program.write_text(NIGHTJAR)
    for path in (script, program):
        path.chmod(0o755)
    (folder / "numba").mkdir()
    (folder / "numba").chmod(0o777)
    return folder


def run(house: Path, work: Path, *words: str) -> str:
    """What the program says."""
    done = subprocess.run(
        [str(house / "entrypoint"), *words], cwd=work, capture_output=True, text=True, check=True,
        env={"PATH": f"{house / 'bin'}:{os.environ['PATH']}", "HOME": "/root",
             "NUMBA_CACHE_DIR": str(house / "numba")},
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("owner", "mode", "who"), [(4321, 0o755, 4321), (0, 0o1777, 1000), (0, 0o755, 0)]
)
def test_files_are_written_as_the_owner_of_the_workspace(
    house: Path, owner: int, mode: int, who: int
) -> None:
    work = house / "work"
    work.mkdir()
    os.chown(work, owner, owner)
    work.chmod(mode)

    said = run(house, work, "run", "/work")

    home = "/root" if who == 0 else "/tmp"
    assert said == f"{who}:{who} {home} {house / 'numba'} run /work"
