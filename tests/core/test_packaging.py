"""What the installed package needs beside its modules is listed for packaging."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_test_cases_is_packaged():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    globs = data["tool"]["setuptools"]["package-data"]["testcases"]
    folder = ROOT / "testcases"
    packaged = {path for pattern in globs for path in folder.glob(pattern)}
    needed = {p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert needed
    assert needed <= packaged
