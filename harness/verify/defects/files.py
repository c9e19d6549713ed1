"""Defects of files: lost, cut short, swapped; logs and alert containers."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
from astropy.io import fits

from harness.verify.copy import Copy
from harness.verify.defect import defect

__all__: list[str] = []


@defect("lost-visit-image", "AG-00-05/visit-images/unexplained")
def lost_visit_image(copy: Copy) -> None:
    """Drop one visit image without a word."""
    unit = copy.units[-1]
    copy.space.visit_image(unit.visit, unit.detector).unlink()


@defect("lost-difference", "AG-00-05/differences/unexplained")
def lost_difference(copy: Copy) -> None:
    """Drop one difference without a word."""
    unit = copy.science[-1]
    copy.space.difference(unit.visit, unit.detector).unlink()


@defect("truncated", "AG-00-05/visit-images/sound")
def truncated(copy: Copy) -> None:
    """Cut a visit image short."""
    unit = copy.units[0]
    path = copy.space.visit_image(unit.visit, unit.detector)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: 2 * len(data) // 3])


@defect("swapped-content", "AG-00-05/visit-images/recorded")
def swapped_content(copy: Copy) -> None:
    """Put another visit image under the name of one."""
    first, second = (copy.space.visit_image(u.visit, u.detector) for u in copy.units[:2])
    data = second.read_bytes()
    first.unlink()
    first.write_bytes(data)


@defect("empty-sources", "AG-00-05/diasources/sound")
def empty_sources(copy: Copy) -> None:
    """Empty the source table of a difference."""
    from pipeline import io

    unit = copy.science[0]
    path = copy.space.staging("DiaSource", unit.visit, unit.detector)
    io.write_parquet(path, io.read_parquet(path).slice(0, 0))


@defect("unexplained-warning", "AG-00-05/campaign/log-audit")
def unexplained_warning(copy: Copy) -> None:
    """Add a warning that nothing explains to the log."""
    line = {"time": "", "level": "warning", "logger": "x", "message": "the flat looked odd"}
    with (copy.space.logs / "sabotage.jsonl").open("w") as stream:
        stream.write(json.dumps(line) + "\n")


@defect("flipped-cutout", "AG-00-30/content/assertions")
def flipped_cutout(copy: Copy) -> None:
    """Turn the science cut-outs of a file upside down."""

    def change(packets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**p, "cutoutScience": _turned(p["cutoutScience"], 0, slice(1))} for p in packets]

    copy.alerts(change)


@defect("mirrored-cutouts", "AG-00-30/content/cutouts")
def mirrored_cutouts(copy: Copy) -> None:
    """Mirror every plane of all cut-outs of a file alike, so that they agree with each other."""

    def change(packets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
        return [{**p, **{n: _turned(p[n], 1, slice(None)) for n in names if p[n]}} for p in packets]

    copy.alerts(change)


def _turned(data: bytes, axis: int, planes: slice) -> bytes:
    """Reverse an axis of some planes of a cut-out."""
    with fits.open(BytesIO(data)) as hdus:
        for hdu in hdus[planes]:
            hdu.data = np.ascontiguousarray(np.flip(hdu.data, axis))
        out = BytesIO()
        hdus.writeto(out)
    return out.getvalue()


@defect("lost-alert", "AG-00-30/one-each/counted")
def lost_alert(copy: Copy) -> None:
    """Drop the last packet of an alert file."""
    copy.alerts(lambda packets: packets[:-1])


@defect("alert-without-difference", "AG-00-30/content/assertions")
def alert_without_difference(copy: Copy) -> None:
    """Leave the difference cut-out out of the packets of a file."""
    copy.alerts(lambda packets: [{**p, "cutoutDifference": None} for p in packets])
