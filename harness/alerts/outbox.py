"""Alerts that a broker has not acknowledged yet, in the catalogue.

An alert is pending for a topic until a row of ``alert_delivery`` says that it was acknowledged;
the row is written after the acknowledgement.  Whatever dies between the two sends the alert
again: it arrives at least once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from harness.catalog import Catalog
from harness.ledger import now_mjd_tai
from harness.workspace import Workspace
from pipeline import alerts

__all__ = ["Outbox", "PendingAlert"]

_BATCH = 500
_ALERTS = """SELECT a.visit, a.detector, a.diaSourceId, a.sizeBytes, d.contentHash
FROM alert a LEFT JOIN alert_delivery d ON d.diaSourceId = a.diaSourceId AND d.topic = ?
WHERE a.emitted ORDER BY a.midpointMjdTai, a.visit, a.detector, a.position"""


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """One alert to be sent.

    Attributes
    ----------
    number : int
        Its ``diaSourceId``.
    payload : bytes
        The packet in Avro's binary encoding.
    digest : str
        First 16 hex digits of the SHA-256 of the packet.
    """

    number: int
    payload: bytes
    digest: str


@dataclass(slots=True)
class Outbox:
    """The alerts of a campaign that are to be sent to a topic.

    Attributes
    ----------
    space : Workspace
        The campaign's folder.
    catalog : Catalog
        Its catalogue, open for writing.
    topic : str
        Name of the topic.
    schema_id : int
        Number of the schema that is recorded with every delivery.
    changed : bool
        Whether alerts are pending again whose content has changed since.
    """

    space: Workspace
    catalog: Catalog
    topic: str
    schema_id: int
    changed: bool = False
    _delivered: list[dict[str, object]] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the alerts that have never been delivered."""
        rows = self.catalog.fetch(
            f"SELECT count(*) FROM ({_ALERTS}) WHERE contentHash IS NULL", [self.topic]
        )
        return int(rows[0][0])

    def pending(self) -> Iterator[PendingAlert]:
        """Yield what is to be sent, in the order of time; one file is held at a time.

        Raises
        ------
        FileFormatError
            If an alert file is missing, damaged or not what the catalogue says.
        """
        rows = self.catalog.rows(_ALERTS, [self.topic])
        for unit, group in groupby(rows, key=lambda row: (row["visit"], row["detector"])):
            its = list(group)
            if not self.changed and all(row["contentHash"] for row in its):
                continue
            sizes = [row["sizeBytes"] for row in its]
            payloads = alerts.read_payloads(self.space.alerts(*unit), sizes)
            for row, payload in zip(its, payloads, strict=True):
                digest = hashlib.sha256(payload).hexdigest()[:16]
                known = row["contentHash"]
                if known is None or (self.changed and known != digest):
                    yield PendingAlert(row["diaSourceId"], payload, digest)

    def delivered(self, pending: PendingAlert, partition: int, offset: int) -> None:
        """Note an acknowledgement; many are written together."""
        self._delivered.append(
            {
                "topic": self.topic,
                "diaSourceId": pending.number,
                "contentHash": pending.digest,
                "schemaId": self.schema_id,
                "brokerPartition": partition,
                "brokerOffset": offset,
                "deliveredMjdTai": now_mjd_tai(),
            }
        )
        if len(self._delivered) >= _BATCH:
            self.save()

    def save(self) -> None:
        """Write the acknowledgements noted so far."""
        rows = {row["diaSourceId"]: row for row in self._delivered}
        if not rows:
            return
        with self.catalog.transaction():
            for number in rows:
                self.catalog.delete("alert_delivery", topic=self.topic, diaSourceId=number)
            self.catalog.insert_rows("alert_delivery", list(rows.values()))
        self._delivered.clear()
