"""Writing a report: one folder per judgement, every rendering made from `report.json` alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness.report.html import render_html
from harness.report.junit import render_junit
from harness.report.markdown import render_markdown
from harness.workspace import Workspace, atomic
from pipeline.errors import InputError

__all__ = ["latest_report", "load_report", "next_folder", "render_all", "write_report"]


def next_folder(space: Workspace, name: str) -> Path:
    """Return the folder of the next report: the campaign's name and a running number.

    Parameters
    ----------
    space : Workspace
        The campaign.
    name : str
        Its name.

    Returns
    -------
    Path
        A folder that does not exist yet.
    """
    taken = [p.name.removeprefix(f"{name}-") for p in space.root.glob(f"reports/{name}-*")]
    number = max((int(t) for t in taken if t.isdigit()), default=0) + 1
    return space.root / "reports" / f"{name}-{number:03d}"


def latest_report(space: Workspace) -> dict[str, Any] | None:
    """Load the newest report of a workspace, None when there is none.

    Parameters
    ----------
    space : Workspace
        The campaign.

    Returns
    -------
    dict, optional
        The content of ``report.json``.
    """
    path = space.root / "reports" / "latest" / "report.json"
    return load_report(path) if path.is_file() else None


def load_report(path: Path) -> dict[str, Any]:
    """Read a ``report.json``, or the one in a folder.

    Parameters
    ----------
    path : Path
        The file or its folder.

    Returns
    -------
    dict
        The content of the file.

    Raises
    ------
    InputError
        If it is none.
    """
    path = path / "report.json" if path.is_dir() else path
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(f"cannot be read: {err.strerror}", path=path) from err
    except ValueError as err:
        raise InputError(f"is not JSON: {err}", path=path, expected="a report.json") from err
    if not isinstance(report, dict) or not str(report.get("schema", "")).startswith(
        "nightjar-report/"
    ):
        raise InputError("is no report", path=path, expected="a report.json of nightjar verify")
    return report


def write_report(report: dict[str, Any], folder: Path, cases: Path) -> Path:
    """Write a report with all renderings and the case files it was judged by.

    Parameters
    ----------
    report : dict
        Made by `harness.report.model.build`.
    folder : path-like
        The report's own folder, below ``reports``.
    cases : path-like
        The specification, copied beside the report.

    Returns
    -------
    Path
        ``report.html``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(
        folder / "report.json",
        json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    )
    (folder / "cases").mkdir(exist_ok=True)
    for path in sorted(cases.glob("*.yaml")):
        shutil.copyfile(path, folder / "cases" / path.name)
    render_all(folder)
    latest = folder.parent / "latest"
    partial = folder.parent / f".latest-{folder.name}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(folder.name)
    partial.replace(latest)
    return folder / "report.html"


def render_all(folder: Path) -> None:
    """Make every rendering of a report anew from its ``report.json``; byte-identical each time.

    Parameters
    ----------
    folder : Path
        Folder of the report.
    """
    report = load_report(folder)
    _write(folder / "report.html", render_html(report, folder))
    _write(folder / "report.md", render_markdown(report))
    _write(folder / "junit.xml", render_junit(report))


def _write(path: Path, text: str) -> None:
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")
