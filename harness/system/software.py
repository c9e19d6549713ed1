"""Which software made a product."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

__all__ = ["software_version"]


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
    root = Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "--short=8", "HEAD") if (root / ".git").exists() else None
    if not commit:
        return version
    dirty = ".dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{version}+g{commit}{dirty}"


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
