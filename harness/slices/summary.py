"""What the slices of a campaign come to: frames, verdicts, cost, and the cost of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import sims
from harness.drawing.plots import render_plot
from harness.verify.verdict import Verdict, worst

__all__ = ["cost_figure", "summarise"]

_Record = Mapping[str, Any]
_OF_FRAME, _OF_TEMPLATE = ("isr", "calibrate"), ("template",)


def summarise(records: Sequence[_Record], profile: str) -> dict[str, Any]:
    """Add up slices, and project the whole campaign from what they cost.

    Parameters
    ----------
    records : sequence of dict
        From `process_slice`, at least one.
    profile : str
        Profile of the whole campaign.

    Returns
    -------
    dict
        ``promised``, ``accounted`` and ``states`` of the frames; ``verdicts``, the worst of the
        slices by case; ``stages``: number, CPU-s of one, and of the whole campaign;
        ``cpuHours`` of the whole campaign; ``largestBytes`` on disk at a time.
    """
    stages = _stages(records)
    frames = sims.expected(profile)
    science = sum(frame.role == "science" for frame in frames)
    fields = {(visit.field, visit.band) for visit in sims.profiles()[profile].visits}
    templates = len(fields) * len({frame.detector for frame in frames})
    for stage in stages:
        whole = len(frames) if stage["stage"] in _OF_FRAME else science
        stage["whole"] = templates if stage["stage"] in _OF_TEMPLATE else whole
        stage["wholeCpuHours"] = stage["whole"] * stage["cpuS"] / 3600.0
    cases = {case for record in records for case in record["verdicts"]}
    return {
        "slices": len(records),
        "promised": sum(r["promised"] for r in records),
        "accounted": sum(r["accounted"] for r in records),
        "states": dict(sum((Counter(r["states"]) for r in records), Counter())),
        "verdicts": {
            case: worst(
                Verdict.of(r["verdicts"][case]) for r in records if case in r["verdicts"]
            ).word
            for case in sorted(cases)
        },
        "stages": stages,
        "wholeFrames": len(frames),
        "wholeScience": science,
        "cpuHours": sum(stage["wholeCpuHours"] for stage in stages),
        "largestBytes": max(r["bytes"] for r in records),
    }


def _stages(records: Sequence[_Record]) -> list[dict[str, Any]]:
    """Average over the slices, stage by stage."""
    found: dict[str, dict[str, Any]] = {}
    for row in (row for record in records for row in record["stages"]):
        total = found.setdefault(row["stage"], {"stage": row["stage"], "n": 0, "cpuS": 0.0})
        total["n"] += row["n"]
        total["cpuS"] += row["cpuS"]
        total["peakRssMiB"] = max(row["peakRssMiB"] or 0.0, total.get("peakRssMiB", 0.0))
    return [{**total, "cpuS": total["cpuS"] / total["n"]} for total in found.values()]


def cost_figure(records: Sequence[_Record]) -> str:
    """Draw the CPU time per frame and per science frame, slice by slice, as SVG.

    Parameters
    ----------
    records : sequence of dict
        In the order in which they are to stand.

    Returns
    -------
    str
        A document.
    """
    names = list(dict.fromkeys(row["stage"] for record in records for row in record["stages"]))
    series = [
        {
            "name": name,
            "points": [
                [place, row["cpuS"] / row["n"]]
                for place, record in enumerate(records, start=1)
                for row in record["stages"]
                if row["stage"] == name
            ],
        }
        for name in names
    ]
    return render_plot(
        {
            "type": "curve",
            "x": {"label": "slice"},
            "y": {"label": "CPU-s of one", "log": True},
            "series": series,
        }
    )
