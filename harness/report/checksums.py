"""The hashes of all files of a report, and its verdicts in one canonical text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.system.hashes import file_hash
from harness.workspace import atomic

__all__ = ["SIGNATURE", "SUMS", "bundled", "listing", "sums", "verdict_bytes", "write_sums"]

SUMS = "SHA256SUMS"
"""Name of the list of hashes."""

SIGNATURE = f"{SUMS}.sig"
"""Name of a signature of that list."""


def bundled(folder: Path) -> list[Path]:
    """Return every file of a report but the list of their hashes and its signature.

    Parameters
    ----------
    folder : Path
        Folder of the report.

    Returns
    -------
    list of Path
        In order, without links.
    """
    found = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    return sorted(p for p in found if p not in (folder / SUMS, folder / SIGNATURE))


def sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a report.

    Parameters
    ----------
    folder : Path
        Folder of the report.

    Returns
    -------
    dict of str
        By the path within the folder.
    """
    return {p.relative_to(folder).as_posix(): file_hash(p) for p in bundled(folder)}


def listing(hashes: Mapping[str, str]) -> str:
    """Write hashes as ``sha256sum --check`` reads them.

    Parameters
    ----------
    hashes : mapping of str
        By the path within the folder.

    Returns
    -------
    str
        One line per file.
    """
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))


def write_sums(folder: Path) -> None:
    """Write the hashes of all files of a report.

    Parameters
    ----------
    folder : Path
        Folder of the report.
    """
    with atomic(folder / SUMS) as partial:
        partial.write_text(listing(sums(folder)), encoding="utf-8")


def verdict_bytes(report: Mapping[str, Any]) -> bytes:
    """Write all verdicts of a report in one canonical text.

    Parameters
    ----------
    report : mapping
        A ``report.json``, or its conclusions.

    Returns
    -------
    bytes
        JSON: the exit status, the verdicts of the cases and those of the checks by path.
    """
    checks = {
        f"{c['id']}/{i['id']}/{k['id']}": k["verdict"]
        for c in report["cases"]
        for i in c["items"]
        for k in i["checks"]
    }
    content = {
        "exit_code": report["exit_code"],
        "cases": {c["id"]: c["verdict"] for c in report["cases"]},
        "checks": checks,
    }
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
