"""The page on simulated frames: measured values beside the inputs of the simulation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.verify.measurement import Evidence
from harness.workspace import Workspace, atomic

__all__ = ["keep_statistics", "simulation_page"]

_CURVES = 14  # figures; of a camera with many channels the first ones
_COLUMNS = ("statistic", "closest to its bound", "measured", "expected", "unit", "error", "bound",
            "kind of bound", "holds", "compared", "population")  # fmt: skip


def keep_statistics(space: Workspace, statistics: Mapping[str, Any]) -> None:
    """Keep the statistics of a simulation for the reports of its workspace.

    Parameters
    ----------
    space : Workspace
        The workspace.
    statistics : mapping
        ``Statistics.as_json()`` of `sims.statistics`.
    """
    with atomic(space.root / "reports" / "simulation.json") as partial:
        partial.write_text(json.dumps(statistics, indent=1, ensure_ascii=False) + "\n", "utf-8")


def simulation_page(space: Workspace) -> tuple[Evidence, ...]:
    """Return the table and the figures of the page; nothing where no statistics were kept.

    Parameters
    ----------
    space : Workspace
        A simulated campaign.

    Returns
    -------
    tuple of Evidence
        The table first.
    """
    path = space.root / "reports" / "simulation.json"
    if not path.is_file():
        return ()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        return (Evidence("what the frames show", "text", f"{path.name} cannot be read: {err}"),)
    rows = [_row(name, group) for name, group in _by_name(kept["rows"]).items()]
    table = {"columns": list(_COLUMNS), "rows": rows}
    figures = [_figure(curve) for curve in kept["curves"][:_CURVES]]
    return (Evidence("what the frames show and what was put in", "table", table), *figures)


def _by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["name"], []).append(row)
    return groups


def _row(name: str, group: Sequence[Mapping[str, Any]]) -> list[Any]:
    worst = max(group, key=lambda r: r["error"] / r["bound"])
    return [
        name, worst["subject"], worst["measured"], worst["expected"], worst["unit"],
        worst["error"], worst["bound"], "relative" if worst["relative"] else "absolute",
        "yes" if all(r["holds"] for r in group) else "NO",
        len(group), sum(r["population"] for r in group),
    ]  # fmt: skip


def _figure(curve: Mapping[str, Any]) -> Evidence:
    series = [
        {"name": kind, "points": [list(p) for p in zip(curve["x"], curve[kind], strict=True)]}
        for kind in ("measured", "expected")
    ]
    figure = {
        "type": "points",
        "x": {"label": curve["x_label"]},
        "y": {"label": curve["y_label"]},
        "series": series,
    }
    return Evidence(curve["name"], "figure", figure)
