"""Alerts out of files: which are meant, and each in one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.workspace import Workspace
from pipeline import alerts
from pipeline.errors import FileFormatError, InputError

__all__ = ["Choice", "alert_files", "class_of", "read_alerts", "summary"]

_COLUMNS = (
    "visit", "detector", "band", "midpointMjdTai", "ra", "dec", "psfFlux", "psfFluxErr", "snr",
    "reliability",
)  # fmt: skip
_STAR, _GALAXY = 1.0, 10.0
"""Distances within which a neighbour gives an alert its class, arcsec."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which alerts are meant.

    Attributes
    ----------
    source, object_id : int, optional
        Only the alert of this source, those of this object.
    reliability : float, optional
        Only those at least so reliable; those without a reliability are left out then.
    limit : int, optional
        At most so many.
    """

    source: int | None = None
    object_id: int | None = None
    reliability: float | None = None
    limit: int | None = None

    def takes(self, packet: Mapping[str, Any]) -> bool:
        """Whether an alert is meant."""
        row = packet["diaSource"]
        reliability = row.get("reliability")
        return (
            (self.source is None or packet.get("diaSourceId") == self.source)
            and (self.object_id is None or row.get("diaObjectId") == self.object_id)
            and (
                self.reliability is None
                or (isinstance(reliability, float) and reliability >= self.reliability)
            )
        )


def alert_files(paths: Sequence[Path]) -> list[Path]:
    """Find the alert files of workspaces and folders.

    Parameters
    ----------
    paths : sequence of Path
        Alert files, folders of them, or workspaces.

    Returns
    -------
    list of Path
        Files, those of a folder by name.

    Raises
    ------
    FileFormatError
        If a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        space = Workspace(path)
        folder = path / "alerts" if space.config.is_file() else path
        inside = sorted(folder.glob("*.avro"))
        if not inside:
            raise FileFormatError("holds no alert files", path=folder, expected="*.avro")
        found += inside
    return found


def read_alerts(
    files: Sequence[Path],
    choice: Choice = Choice(),
    troubles: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Read the alerts that are meant.

    Parameters
    ----------
    files : sequence of Path
        Alert files.
    choice : Choice
        Which alerts.
    troubles : list of str, optional
        Takes a line about every file that cannot be read, and the rest goes on.

    Yields
    ------
    dict
        One alert after the other.

    Raises
    ------
    InputError
        For a file that cannot be read, unless troubles are collected.
    """
    left = choice.limit
    for path in files:
        try:
            for packet in alerts.read(path):
                _require_layout(packet, path)
                if choice.takes(packet):
                    if left is not None and left <= 0:
                        return
                    left = left and left - 1
                    yield packet
        except InputError as err:
            if troubles is None:
                raise
            troubles.append(str(err))


def _require_layout(packet: Mapping[str, Any], path: Path) -> None:
    if not (
        isinstance(packet.get("diaSource"), dict) and isinstance(packet.get("diaSourceId"), int)
    ):
        raise FileFormatError(
            "holds other records than alerts in the layout of LSST",
            path=path, expected="a diaSourceId and a diaSource in each",
        )  # fmt: skip


def summary(packet: Mapping[str, Any]) -> dict[str, Any]:
    """One row about an alert: source, object, time, place, flux, significance, history.

    Parameters
    ----------
    packet : mapping
        The alert.

    Returns
    -------
    dict
        Values by column.
    """
    row = packet["diaSource"]
    return {
        "diaSourceId": packet.get("diaSourceId"),
        "diaObjectId": row.get("diaObjectId"),
        "ssObjectId": row.get("ssObjectId"),
        **{name: row.get(name) for name in _COLUMNS},
        "class": class_of(packet),
        "history": len(packet.get("prvDiaSources") or ()),
        "forced": len(packet.get("prvDiaForcedSources") or ()),
    }


def class_of(packet: Mapping[str, Any]) -> str:
    """Say in a word what an alert looks like; no more than its flags and neighbours tell.

    Parameters
    ----------
    packet : mapping
        The alert.

    Returns
    -------
    str
        ``solar system`` (a known body), ``dipole``, ``streak``, ``star`` (one within 1 arcsec),
        ``galaxy`` (one within 10 arcsec) or ``other``; the first that applies.
    """
    row = packet["diaSource"]
    if packet.get("ssSource") or row.get("ssObjectId"):
        return "solar system"
    if row.get("isDipole"):
        return "dipole"
    if row.get("glint_trail") or row.get("pixelFlags_streakCenter"):
        return "streak"
    more = packet.get("nightjar") or {}
    for kind, reach in (("star", _STAR), ("galaxy", _GALAXY)):
        for near in more.get("nearbyObjects") or ():
            distance = near.get("dist")
            if near.get("objectType") == kind and distance is not None and distance <= reach:
                return kind
    return "other"
