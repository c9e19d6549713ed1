"""The tasks of a campaign, in the order of the data.  A new one is one file and one line here."""

from collections.abc import Iterable, Mapping
from typing import Any

from harness.campaign.task import Task
from harness.tasks import alerts, association, difference, forced, template, visit_image

__all__ = ["TASKS", "in_order", "stages"]

TASKS: tuple[Task, ...] = (
    visit_image.TASK,
    template.TASK,
    difference.TASK,
    association.TASK,
    forced.TASK,
    alerts.TASK,
)


def stages() -> tuple[str, ...]:
    """Names of all stages, in the order of the data.

    Returns
    -------
    tuple of str
        Each name once.
    """
    return tuple(name for task in TASKS for name in task.stage_names)


def in_order(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort rows by their column ``stage``; stages of another version come last.

    Parameters
    ----------
    rows : iterable of mapping
        Rows with a column ``stage``.

    Returns
    -------
    list of mapping
        The same rows.
    """
    places = {name: place for place, name in enumerate(stages())}
    return sorted(rows, key=lambda row: places.get(row["stage"], len(places)))
