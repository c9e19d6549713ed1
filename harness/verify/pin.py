"""Pinning the specification before a campaign runs, and what changed since.

In 2017 two FAILED verdicts became Pass because the criteria were edited after the run.  Here the
criteria are hashed before the first frame is processed, kept in the workspace, and every
difference to what is judged later is listed in the report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.system.hashes import file_hash
from harness.verify.loader import Spec, load_spec
from harness.verify.paths import TESTCASES
from harness.workspace import Workspace, atomic

if TYPE_CHECKING:
    from harness.verify.context import Context

__all__ = ["Change", "changes", "pin", "pinned", "tampering"]


@dataclass(frozen=True, slots=True)
class Change:
    """A criterion that is not what it was.

    Attributes
    ----------
    path : str
        ``case/item/check``.
    before, after : str
        Its text in JSON, empty where it did not exist.
    """

    path: str
    before: str
    after: str


def pin(space: Workspace, folder: Path = TESTCASES, *, late: bool = False) -> dict[str, Any]:
    """Record the specification in a workspace unless one is recorded already.

    Parameters
    ----------
    space : Workspace
        The campaign.
    folder : path-like
        The case files.
    late : bool
        Whether the campaign has run already.

    Returns
    -------
    dict
        ``hash``, ``utc``, ``late`` and ``criteria``.
    """
    known = pinned(space)
    if known is not None:
        return known
    spec = load_spec(folder)
    record = {
        "hash": spec.hash,
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "late": late,
        "criteria": spec.criteria,
    }
    with atomic(space.specification) as partial:
        partial.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    return record


def pinned(space: Workspace) -> dict[str, Any] | None:
    """Return the recorded specification, None when there is none that can be read.

    Parameters
    ----------
    space : Workspace
        The campaign.

    Returns
    -------
    dict, optional
        As it was recorded.
    """
    path = space.specification
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("criteria"), dict) else None


def tampering(context: Context) -> list[Change]:
    """List the runs that started under another pinned specification than the one that lies here.

    Parameters
    ----------
    context : Context
        The campaign; its catalogue keeps the SHA-256 of the pinned specification of every run.

    Returns
    -------
    list of Change
        One per run; ``after`` is empty where the specification was deleted.
    """
    if "specHash" not in context.columns.get("run", ()):
        return []
    path = context.space.specification
    present = file_hash(path) if path.is_file() else ""
    runs = context.fetch("SELECT runId, specHash FROM run WHERE specHash IS NOT NULL ORDER BY ALL")
    return [Change(f"{path.name} of run {r}", h, present) for r, h in runs if h != present]


def changes(before: Mapping[str, str], spec: Spec) -> list[Change]:
    """List every criterion that was added, removed or altered.

    Parameters
    ----------
    before : mapping of str
        Hashes of the criteria by path, when they were recorded.
    spec : Spec
        The criteria of today.

    Returns
    -------
    list of Change
        Empty when none changed.
    """
    after = spec.criteria
    return [
        Change(path, before.get(path, ""), after.get(path, ""))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
