"""Pinning the specification before a campaign runs, and what changed since.

In 2017 two FAILED verdicts became Pass because the criteria were edited after the run.  Here the
criteria are hashed before the first frame is processed, kept in the workspace, and every
difference to what is judged later is listed in the report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.system.software import tree_hash
from harness.verify.loader import Spec, load_spec
from harness.verify.paths import TESTCASES
from harness.verify.tampering import Change
from harness.workspace import Workspace, atomic

__all__ = ["changes", "pin", "pinned"]


_CODE = "harness/verify"
"""The code that judges, as a criterion: constants of the measurements stand in it."""


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
        "criteria": spec.criteria | {_CODE: tree_hash(_CODE)},
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


def changes(before: Mapping[str, str], spec: Spec) -> list[Change]:
    """List every criterion that was added, removed or altered.

    Parameters
    ----------
    before : mapping of str
        Hashes of the criteria by path, when they were recorded.
    spec : Spec
        The criteria of today; the code that judges belongs to them.

    Returns
    -------
    list of Change
        Empty when none changed.
    """
    after = spec.criteria | ({_CODE: tree_hash(_CODE)} if _CODE in before else {})
    return [
        Change(path, before.get(path, ""), after.get(path, ""))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
