"""Records of commands that ran elsewhere or earlier: unit tests, container, installation.

``python -m harness.verify.evidence KIND [--junit FILE] [--since T] [--folder DIR] -- COMMAND…``
runs a command, passes its output and exit status on, and writes ``KIND.log`` and ``KIND.json``:

``{"kind", "commit", "tree", "utc", "machine", "command", "log", "junit", "result", "sha256"}``

A record counts as evidence for the source tree whose hash it holds and for no other.  It has to
agree with its log and its JUnit file, and with its own hash: a record typed by hand does not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

from harness.system.hashes import file_hash
from harness.system.software import tree_hash
from harness.workspace import atomic

__all__ = [
    "current_commit",
    "fault_of",
    "junit_counts",
    "keep_run",
    "kept_run",
    "main",
    "run_recorded",
    "write_record",
]

FOLDER = Path("campaigns/evidence")
_FIELDS = {"kind", "commit", "tree", "utc", "machine", "command", "log", "junit", "result"}


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


def run_recorded(
    kind: str,
    command: Sequence[str],
    folder: Path = FOLDER,
    *,
    junit: Path | None = None,
    since: float | None = None,
) -> int:
    """Run a command, pass its output on and write its log and its record.

    Parameters
    ----------
    kind : str
        What it is evidence of; also the name of the files.
    command : sequence of str
        What is run.
    folder : path-like
        Where records lie.
    junit : path-like, optional
        A JUnit file that the command writes; kept beside the record.
    since : float, s, optional
        Unix time at which the work began; now by default.

    Returns
    -------
    int
        Exit status of the command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.time() if since is None else since
    log = folder / f"{kind}.log"
    with log.open("wb") as stream:
        stream.write(_first_line(" ".join(command)))
        status = _tee(command, stream)
        result: dict[str, Any] = {"exit_status": status, "wall_s": round(time.time() - start, 2)}
        stream.write(_last_line(result))
    if junit is not None and junit.is_file():
        result |= junit_counts(junit)
        kept = folder / f"{kind}.xml"
        if kept.resolve() != junit.resolve():
            kept.write_bytes(junit.read_bytes())
    write_record(kind, result, " ".join(command), folder)
    return status


def _first_line(command: str) -> bytes:
    return f"$ {command}\n".encode()


def _last_line(result: Mapping[str, Any]) -> bytes:
    return f"\nexit status {result['exit_status']} after {result['wall_s']} s\n".encode()


def _tee(command: Sequence[str], stream: IO[bytes]) -> int:
    """Run a command; what it says goes to the standard output and into a file."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as process:
        assert process.stdout is not None
        while block := process.stdout.read(1 << 16):
            stream.write(block)
            sys.stdout.write(block.decode(errors="replace"))
            sys.stdout.flush()
    return process.returncode


def keep_run(kind: str, command: str, output: str, seconds: float, folder: Path = FOLDER) -> None:
    """Record a command that ended well, so that it need not be run twice for the same code.

    Parameters
    ----------
    kind : str
        What it is evidence of; also the name of the files.
    command : str
        What was run.
    output : str
        What it said.
    seconds : float, s
        Wall time.
    folder : path-like
        Where records lie; nothing is kept where one may not write.
    """
    result = {"exit_status": 0, "wall_s": round(seconds, 2), "packages": _packages()}
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / f"{kind}.log") as partial:
            partial.write_bytes(_first_line(command) + output.encode() + _last_line(result))
        write_record(kind, result, command, folder)


def kept_run(kind: str, command: str, folder: Path = FOLDER) -> tuple[str, float] | None:
    """Return output and wall time in seconds of a run that `keep_run` recorded.

    Parameters
    ----------
    kind, command : str
        Under which, and what was run.
    folder : path-like
        Where records lie.

    Returns
    -------
    tuple of str and float, optional
        None unless a sound record is of this source tree, these packages and this machine.
    """
    path = folder / f"{kind}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if fault_of(record, folder) or (record["tree"], record["command"]) != (
            tree_hash(),
            command,
        ):
            return None
        if record["machine"] != _machine() or record["result"].get("packages") != _packages():
            return None
        return (folder / f"{kind}.log").read_text(encoding="utf-8"), record["result"]["wall_s"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@lru_cache(maxsize=1)
def _packages() -> str:
    """SHA-256 over names and versions of everything that is installed."""
    found = {f"{d.name} {d.version}" for d in metadata.distributions()}
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


def _machine() -> dict[str, object]:
    return {
        "host": platform.node(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "python": platform.python_version(),
    }


def write_record(kind: str, result: dict[str, Any], command: str, folder: Path = FOLDER) -> Path:
    """Write the record of a command whose log lies in the folder.

    Parameters
    ----------
    kind : str
        What it is evidence of; also the name of the file.
    result : dict
        JSON values.
    command : str
        What was run.
    folder : path-like
        Where records and logs lie.

    Returns
    -------
    Path
        The file.
    """
    log, junit = folder / f"{kind}.log", folder / f"{kind}.xml"
    record = {
        "kind": kind,
        "commit": current_commit(),
        "tree": tree_hash(),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "command": command,
        "log": file_hash(log),
        "junit": file_hash(junit) if "tests" in result else None,
        "result": result,
    }
    path = folder / f"{kind}.json"
    with atomic(path) as partial:
        sealed = {**record, "sha256": _seal(record)}
        partial.write_text(json.dumps(sealed, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _seal(record: Mapping[str, Any]) -> str:
    content = {k: v for k, v in record.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fault_of(record: Mapping[str, Any], folder: Path) -> str:
    """Say why a record cannot have been written by the command that it names.

    Parameters
    ----------
    record : mapping
        Content of ``KIND.json``.
    folder : path-like
        Where its log and its JUnit file lie.

    Returns
    -------
    str
        One phrase, empty for a sound record.
    """
    if missing := sorted(_FIELDS - record.keys()):
        return f"lacks {', '.join(missing)}"
    if record.get("sha256") != _seal(record):
        return "does not have the hash that it states"
    log, result = folder / f"{record['kind']}.log", record["result"]
    if not log.is_file() or file_hash(log) != record["log"]:
        return f"is not of the log {log.name} that lies here"
    text = log.read_bytes()
    if not text.startswith(_first_line(record["command"])) or not text.endswith(_last_line(result)):
        return f"states another command, exit status or duration than {log.name}"
    if "tests" in result:
        junit = folder / f"{record['kind']}.xml"
        if not junit.is_file() or file_hash(junit) != record["junit"]:
            return f"is not of the file {junit.name} that lies here"
        if not junit_counts(junit).items() <= result.items():
            return f"states other counts than {junit.name}"
    return ""


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
    return run_recorded(
        options.kind, command, options.folder, junit=options.junit, since=options.since
    )


if __name__ == "__main__":
    sys.exit(main())
