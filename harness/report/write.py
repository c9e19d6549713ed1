"""Writing a report: one folder per judgement, every rendering made from `report.json` alone."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from harness.report.checksums import verdict_bytes, write_sums
from harness.report.crate import CRATE, STATEMENT, crate, statement
from harness.report.html import render_html, render_nights
from harness.report.junit import render_junit
from harness.report.markdown import render_markdown
from harness.verify.loader import spec_files
from harness.workspace import Workspace, atomic
from pipeline.errors import FileFormatError, InputError

__all__ = [
    "RENDERINGS",
    "latest_report",
    "load_report",
    "next_folder",
    "render_all",
    "write_report",
]

RENDERINGS = ("report.html", "report.md", "junit.xml", STATEMENT, CRATE, "nights")
"""Files and folders that are made from ``report.json`` and the other files beside it."""


def next_folder(reports: Path, name: str) -> Path:
    """Make the folder of the next report: the campaign's name and a running number.

    Parameters
    ----------
    reports : path-like
        The folder of all reports.
    name : str
        Name of the campaign.

    Returns
    -------
    Path
        The new folder, with one for the evidence inside.

    Raises
    ------
    FileFormatError
        If it cannot be made.
    """
    taken = [p.name.removeprefix(f"{name}-") for p in reports.glob(f"{name}-*")]
    number = max((int(t) for t in taken if t.isdigit()), default=0) + 1
    folder = reports / f"{name}-{number:03d}"
    try:
        (folder / "evidence").mkdir(parents=True)
    except OSError as err:
        raise FileFormatError(
            f"the report cannot be written: {err.strerror}",
            path=folder,
            hint="write it elsewhere with --output FOLDER",
        ) from err
    return folder


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
    with suppress(InputError):  # a broken one is nothing to compare with
        return load_report(path) if path.is_file() else None
    return None


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
    except (ValueError, RecursionError) as err:
        raise InputError(f"is not JSON: {err}", path=path, expected="a report.json") from err
    if not isinstance(report, dict) or not str(report.get("schema", "")).startswith(
        "nightjar-report/"
    ):
        raise InputError("is no report", path=path, expected="a report.json of nightjar verify")
    return report


def write_report(
    report: dict[str, Any], folder: Path, cases: Path, pin: Path | None = None
) -> Path:
    """Write a report with all renderings, the case files it was judged by and all hashes.

    Parameters
    ----------
    report : dict
        Made by `harness.report.model.build`.
    folder : path-like
        The report's own folder, below ``reports``.
    cases : path-like
        The specification, copied beside the report.
    pin : path-like, optional
        The specification as it was pinned before the run, copied likewise.

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
    for path in spec_files(cases):
        kept = folder / "cases" / path.relative_to(cases)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
    if pin is not None and pin.is_file():
        shutil.copyfile(pin, folder / pin.name)
    (folder / "verdicts.json").write_bytes(verdict_bytes(report))
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

    Raises
    ------
    InputError
        If there is no complete report, or it names a file that is none of its own.
    """
    report = load_report(folder)
    try:
        texts = {
            "report.html": render_html(report, folder),
            "report.md": render_markdown(report),
            "junit.xml": render_junit(report),
            STATEMENT: statement(report, folder),
            **render_nights(report, folder),
        }
        for name, text in texts.items():
            _write(folder / name, text)
        _write(folder / CRATE, crate(report, folder))  # of all the others
    except (TemplateError, KeyError, TypeError, ValueError, AttributeError, IndexError) as err:
        if isinstance(err, InputError):
            raise
        cause = " ".join(f"{type(err).__name__}: {err}".split())
        raise InputError(f"is no complete report ({cause})", path=folder / "report.json") from err
    write_sums(folder)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")
