"""Cut-outs of alerts as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.drawing.cutouts import STAMPS, read_stamps, stamp_as_png
from harness.workspace import atomic, translate_os_errors

__all__ = ["write_stamps"]


def write_stamps(
    folder: Path, packets: Iterable[Mapping[str, Any]], *, scale: int = 4, as_fits: bool = False
) -> int:
    """Write the cut-outs of alerts, ``NUMBER_science.png`` and so on.

    Parameters
    ----------
    folder : Path
        Where to; made if it is not there.
    packets : iterable of mapping
        The alerts.
    scale : int
        Side of a pixel in a PNG.
    as_fits : bool
        Whether to write the cut-outs as they are, instead of PNG with north up.

    Returns
    -------
    int
        Files written.
    """
    number = 0
    with translate_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for packet in packets:
            for name, data in _files(packet, scale, as_fits=as_fits):
                with atomic(folder / f"{int(packet['diaSourceId'])}_{name}") as partial:
                    partial.write_bytes(data)
                number += 1
    return number


def _files(packet: Mapping[str, Any], scale: int, *, as_fits: bool) -> list[tuple[str, bytes]]:
    if as_fits:
        return [(f"{n}.fits", data) for n, field in STAMPS.items() if (data := packet.get(field))]
    return [(f"{s.name}.png", stamp_as_png(s, scale)) for s in read_stamps(packet)]
