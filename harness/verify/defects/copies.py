"""Defects of the way from the pipeline to the user: catalogue, staging and packets disagree."""

from __future__ import annotations

from typing import Any

from harness.verify.copy import Copy
from harness.verify.defect import defect

__all__: list[str] = []

_ONE = "(select diaForcedSourceId from DiaForcedSource where psfFlux is not null limit 1)"


@defect("doubled-fluxes", "AG-00-20/flux-units/scale")
def doubled_fluxes(copy: Copy) -> None:
    """Double every flux of the sources in the catalogue."""
    copy.sql("update DiaSource set psfFlux = 2 * psfFlux")


@defect("moved-sources", "AG-00-30/recovered/detected")
def moved_sources(copy: Copy) -> None:
    """Move every source of the catalogue by 3 arcsec in right ascension."""
    copy.sql("update DiaSource set ra = ra + 3.0 / 3600")


@defect("swapped-errors", "AG-00-05/diasources/catalogued")
def swapped_errors(copy: Copy) -> None:
    """Swap the errors of right ascension and declination in the catalogue."""
    copy.sql("update DiaSource set raErr = decErr, decErr = raErr")


@defect("scrambled-flags", "AG-00-05/diasources/catalogued")
def scrambled_flags(copy: Copy) -> None:
    """Exchange two flags of all sources in the catalogue."""
    copy.sql(
        "update DiaSource set pixelFlags_edge = pixelFlags_interpolated, "
        "pixelFlags_interpolated = pixelFlags_edge"
    )


@defect("lost-forced-flux", "AG-00-05/diasources/forced-catalogued")
def lost_forced_flux(copy: Copy) -> None:
    """Forget one forced flux in the catalogue."""
    copy.sql(f"update DiaForcedSource set psfFlux = null where diaForcedSourceId = {_ONE}")


@defect("lost-peak", "AG-00-05/diasources/ledgers-catalogued")
def lost_peak(copy: Copy) -> None:
    """Drop a rejected peak from the ledger of the catalogue."""
    copy.sql(
        "delete from candidate where candidateId = "
        "(select min(candidateId) from candidate where not accepted)"
    )


@defect("changed-fate", "AG-00-05/diasources/fates-catalogued")
def changed_fate(copy: Copy) -> None:
    """Give another reason for an alert that was not sent."""
    copy.sql(
        "update alert set reason = 'other' where diaSourceId = "
        "(select min(diaSourceId) from alert where not emitted)"
    )


@defect("packet-flux", "AG-00-30/content/catalogued")
def packet_flux(copy: Copy) -> None:
    """Make the fluxes that the packets of a file announce a hundredth too large."""

    def change(packets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for packet in packets:
            if packet["diaSource"]["psfFlux"] is not None:
                packet["diaSource"]["psfFlux"] *= 1.01
        return packets

    copy.alerts(change)


@defect("packet-forced-flux", "AG-00-30/content/forced-catalogued")
def packet_forced_flux(copy: Copy) -> None:
    """Quote the forced fluxes of another epoch in the packets of the last file."""

    def change(packets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for packet in packets:
            forced = packet["prvDiaForcedSources"] or []
            fluxes = [row["psfFlux"] for row in forced]
            for row, flux in zip(forced, fluxes[1:] + fluxes[:1], strict=True):
                row["psfFlux"] = flux
        return packets

    copy.alerts(change, -1)


@defect("shared-alert-numbers", "AG-00-30/content/assertions")
def shared_alert_numbers(copy: Copy) -> None:
    """Give neighbouring alerts of a file one number."""

    def change(packets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for packet in packets:
            packet["nightjar"]["alertId"] &= ~1
        return packets

    copy.alerts(change)


@defect("forced-look-ahead", "AG-00-30/content/assertions")
def forced_look_ahead(copy: Copy) -> None:
    """Quote a forced flux of the day after the alert in the packets of the last file."""

    def change(packets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for packet in packets:
            if forced := packet["prvDiaForcedSources"]:
                late = packet["diaSource"]["midpointMjdTai"] + 1.0
                forced.append({**forced[-1], "midpointMjdTai": late})
        return packets

    copy.alerts(change, -1)
