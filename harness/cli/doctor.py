"""``nightjar doctor``: whether this installation is fit to work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, emit

__all__ = ["doctor"]

_NEEDED = {
    "numpy": "2.1",
    "scipy": "1.14",
    "astropy": "7.0",
    "numba": "0.61",
    "pyarrow": "18",
    "duckdb": "1.5",
    "pydantic": "2.10",
    "fastavro": "1.10",
    "galsim": "2.7",
    "sep": "1.4",
    "scikit-learn": "1.6",
    "jinja2": "3.1",
    "matplotlib": "3.10",
}
_MEMORY_GIB, _DISK_GIB = 2.0, 2.0


@dataclass(frozen=True, slots=True)
class _Finding:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    hint: str = ""


def doctor(
    workspace: Annotated[
        Path | None, typer.Argument(metavar="[WORKSPACE]", help="Look at a workspace as well.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check Python, libraries, compiler cache, memory, disk and, if given, a workspace.

    Exit code 0 when everything is fit, 1 when something is not.
    """
    checks: list[Callable[[], list[_Finding]]] = [_python, _libraries, _compiled, _machine]
    if workspace is not None:
        chosen = workspace
        checks.append(lambda: _workspace(chosen))
    findings = [finding for check in checks for finding in check()]
    if as_json:
        emit({"ok": all(f.ok for f in findings), "findings": [asdict(f) for f in findings]})
    else:
        for f in findings:
            hint = f"  → {f.hint}" if f.hint and not f.ok else ""
            typer.echo(f"{'ok  ' if f.ok else 'BAD '} {f.name:<16} {f.found}{hint}")
    if not all(f.ok for f in findings):
        raise typer.Exit(1)


def _python() -> list[_Finding]:
    import platform
    import sys

    from harness.system.software import software_version

    good = (3, 11) <= sys.version_info < (3, 14)
    return [
        _Finding("nightjar", True, software_version()),
        _Finding("python", good, platform.python_version(), "Python 3.11, 3.12 or 3.13"),
    ]


def _libraries() -> list[_Finding]:
    from importlib import metadata

    findings = []
    for name, least in _NEEDED.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            findings.append(_Finding(name, False, "missing", f"pip install '{name}>={least}'"))
            continue
        good = _numbers(version) >= _numbers(least)
        findings.append(_Finding(name, good, version, f"pip install '{name}>={least}'"))
    return findings


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:3]
    return tuple(int("".join(c for c in p if c.isdigit()) or 0) for p in parts)


def _compiled() -> list[_Finding]:
    """Compile something small, and see whether machine code can be kept on disk."""
    import os

    import numpy as np

    import pipeline
    from pipeline.psfphot import fwhm

    try:
        stamp = np.zeros((1, 5, 5))
        stamp[0, 2, 2] = 1.0
        works = bool(np.isfinite(fwhm(stamp))[0])
    except Exception as err:  # whatever the compiler says is what we want to show
        return [_Finding("compiler", False, f"{type(err).__name__}: {err}", "reinstall numba")]
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(pipeline.__file__).parent)
    kept = os.access(folder, os.W_OK)
    hint = "set NUMBA_CACHE_DIR to a folder you may write to, or every process compiles anew"
    return [
        _Finding("compiler", works, "numba works"),
        _Finding("compiler cache", kept, f"{folder} {'writable' if kept else 'read-only'}", hint),
    ]


def _machine() -> list[_Finding]:
    import os
    import shutil

    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    needs = f"{_MEMORY_GIB:g} GiB per process are needed: use fewer --jobs"
    return [
        _Finding("processors", True, str(cores)),
        _Finding("memory", memory >= _MEMORY_GIB, f"{memory:.1f} GiB", needs),
        _Finding("disk", disk >= _DISK_GIB, f"{disk:.1f} GiB free here", "a mini campaign needs 2"),
    ]


def _workspace(root: Path) -> list[_Finding]:
    from harness.catalog import Catalog
    from harness.settings import Settings
    from harness.workspace import Workspace
    from pipeline.errors import InputError

    findings = []
    try:
        space = Workspace.open(root)
        findings.append(_Finding("workspace", True, str(root)))
        Settings.load(space.config)
        findings.append(_Finding("configuration", True, str(space.config)))
        with space.changing("doctor"):
            findings.append(_Finding("writable", True, str(root)))
        if space.catalog.exists():
            with Catalog(space.catalog, read_only=True) as catalog:
                n = catalog.count("unit")
            findings.append(_Finding("catalogue", True, f"{n} units recorded"))
    except InputError as err:
        findings.append(_Finding("workspace", False, str(err)))
    return findings
