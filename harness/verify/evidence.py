"""Records of commands that ran elsewhere or earlier: unit tests, container, installation.

``python -m harness.verify.evidence KIND [--junit FILE] [--since T] [--folder DIR] -- COMMAND…``
runs a command, passes its output and exit status on, and writes ``KIND.json``:

``{"kind", "commit", "utc", "command", "result": {"exit_status", "wall_s", …}}``

A record counts as evidence for the commit it names and for no other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from harness.workspace import atomic

__all__ = ["current_commit", "junit_counts", "main", "write_record"]

FOLDER = Path("campaigns/evidence")


@lru_cache(maxsize=1)
def current_commit() -> str:
    """Commit of the source tree, ``+dirty`` when tracked files differ, ``unknown`` without git."""
    root = Path(__file__).resolve().parents[2]
    head = _git(root, "rev-parse", "HEAD")
    if not head:
        return "unknown"
    return f"{head}+dirty" if _git(root, "status", "--porcelain", "-uno") else head


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def junit_counts(path: Path) -> dict[str, int]:
    """Count the outcomes in a JUnit file.

    Parameters
    ----------
    path : path-like
        Written by pytest.

    Returns
    -------
    dict
        ``tests``, ``failed``, ``skipped`` and ``skipped_without_reason``.
    """
    root = ElementTree.parse(path).getroot()
    cases = list(root.iter("testcase"))
    skips = [s for c in cases for s in c.iter("skipped")]
    return {
        "tests": len(cases),
        "failed": sum(
            1 for c in cases if c.find("failure") is not None or c.find("error") is not None
        ),
        "skipped": len(skips),
        "skipped_without_reason": sum(1 for s in skips if not (s.get("message") or "").strip()),
    }


def write_record(kind: str, result: dict[str, Any], command: str, folder: Path = FOLDER) -> Path:
    """Write one record.

    Parameters
    ----------
    kind : str
        What it is evidence of; also the name of the file.
    result : dict
        JSON values.
    command : str
        What was run.
    folder : path-like
        Where records lie.

    Returns
    -------
    Path
        The file.
    """
    record = {
        "kind": kind,
        "commit": current_commit(),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "result": result,
    }
    path = folder / f"{kind}.json"
    with atomic(path) as partial:
        partial.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and record it.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of the process by default.

    Returns
    -------
    int
        Exit status of the command.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--" not in words:
        words.append("--")
    split = words.index("--")
    parser = argparse.ArgumentParser(prog="python -m harness.verify.evidence", description=__doc__)
    parser.add_argument("kind")
    parser.add_argument("--junit", type=Path)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--since", type=float, help="when the work began, in seconds of Unix time")
    options = parser.parse_args(words[:split])
    command = words[split + 1 :]
    if not command:
        parser.error("a command must follow --")
    options.folder.mkdir(parents=True, exist_ok=True)
    start = time.time() if options.since is None else options.since
    status = subprocess.run(command, check=False).returncode
    result: dict[str, Any] = {"exit_status": status, "wall_s": round(time.time() - start, 2)}
    if options.junit is not None and options.junit.is_file():
        result |= junit_counts(options.junit)
    write_record(options.kind, result, " ".join(command), options.folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
