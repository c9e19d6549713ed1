"""Which software made a product."""

from __future__ import annotations

import hashlib
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

__all__ = ["software_version", "tree_hash"]

_ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("pipeline", "sims", "harness", "testcases", "tests", "bench", "docs", "examples")
_TOP = ("Makefile", "README.md", "pyproject.toml", "requirements.lock")


@lru_cache(maxsize=1)
def software_version() -> str:
    """Version of the distribution, with commit and ``.dirty`` when run from a checkout.

    Returns
    -------
    str
        ``0.1.0`` or ``0.1.0+g1a2b3c4d.dirty``.
    """
    try:
        version = metadata.version("nightjar")
    except metadata.PackageNotFoundError:
        version = "0"
    root = _ROOT
    commit = _git(root, "rev-parse", "--short=8", "HEAD") if (root / ".git").exists() else None
    if not commit:
        return version
    dirty = ".dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{version}+g{commit}{dirty}"


@lru_cache(maxsize=4)
def tree_hash(*parts: str) -> str:
    """SHA-256 over the names and contents of the source files as they are on disk.

    Parameters
    ----------
    *parts : str
        Folders below the root of the source tree; all of it by default.

    Returns
    -------
    str
        64 hexadecimal digits; compiled files and hidden ones do not count.
    """
    folders = [_ROOT / part for part in parts or _PARTS]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    files += [] if parts else [_ROOT / n for n in _TOP if (_ROOT / n).is_file()]
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(_ROOT)
        if not any(part.startswith((".", "__pycache__")) for part in name.parts):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{name.as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
