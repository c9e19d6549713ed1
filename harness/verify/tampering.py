"""The pinned specification beside the runs that were started under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.system.hashes import file_hash

if TYPE_CHECKING:
    from harness.verify.context import Context

__all__ = ["Change", "tampering"]


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
    path = context.space.specification
    present = file_hash(path) if path.is_file() else ""
    return [
        Change(f"{path.name} of run {run['runId']}", run["specHash"], present)
        for run in context.runs
        if run["specHash"] not in (None, present)
    ]
