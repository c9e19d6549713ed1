"""Everything that people write for a campaign, read and checked: cases, settings, designs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.settings import Settings
from harness.study.design import load_design
from harness.system.text import one_line
from harness.verify.loader import load_spec
from harness.verify.nodes import SpecError
from pipeline.errors import ConfigError

__all__ = ["read_all"]

_SETTINGS = "nightjar.toml"


def read_all(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Read folders of case files, workspaces, settings and designs of studies.

    Parameters
    ----------
    paths : sequence of Path
        A folder with ``nightjar.toml`` is a workspace, another one holds case files; a file is
        settings when it is called so, or else the design of a study.

    Returns
    -------
    found : list of str
        What has no mistake, one line each.
    mistakes : list of str
        ``file:line:column: what (what to do)``, one line each.
    """
    found: list[str] = []
    mistakes: list[str] = []
    for path in paths:
        wrong = _mistakes(path)
        mistakes += wrong
        if not wrong:
            found.append(f"{path}: no mistakes")
    return found, mistakes


def _mistakes(path: Path) -> list[str]:
    if path.is_dir() and not (path / _SETTINGS).is_file():
        return _of_cases(path)
    path = path / _SETTINGS if path.is_dir() else path
    if path.name == _SETTINGS:
        return [one_line(str(err)) for err in Settings.mistakes(path)]
    try:
        load_design(path)
    except ConfigError as err:
        return [one_line(str(err))]
    return []


def _of_cases(folder: Path) -> list[str]:
    try:
        load_spec(folder)
    except SpecError as err:
        return [str(problem) for problem in err.problems]
    return []
