"""Alerts packed and sent to a broker, as JSON lines.

``speed [NUMBER]``: NUMBER (10,000) packets of 165 kB, each with 20 sources and 20 forced fluxes of
history, are packed, written, read again, and taken by librdkafka's mock cluster, in this process
but reached over TCP.  Then every packet is decoded and encoded by fastavro: the bytes have to be
those that were sent.  ``science`` has nothing to measure.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np

from bench.bench_alerts import T0, exposure, known
from bench.report import reporter
from harness.alerts.entries import alert_files
from harness.alerts.publish import publish_campaign
from harness.catalog import Catalog
from harness.ledger import Measure, measuring
from harness.workspace import Workspace
from pipeline import alerts
from pipeline.schema import ALERT

_PER_UNIT = 500
report = reporter("alerts")
MOCK = {"test.mock.num.brokers": "1", "bootstrap.servers": "mock"}
_PARSED = fastavro.parse_schema(alerts.packet_schema())


def campaign(root: Path, number: int, packing: list[Measure]) -> Workspace:
    """A workspace with the alert files of as many visits as it takes; only packing is timed."""
    space, rng = Workspace.create(root), np.random.default_rng(1)
    images = [exposure(rng, (4096, 2048)) for _ in range(3)]
    with Catalog(space.catalog) as catalog:
        for unit in range(-(-number // _PER_UNIT)):
            n = min(_PER_UNIT, number - unit * _PER_UNIT)
            tables = known(n, 21, rng, 400_000 + 100 * unit)
            cutouts = alerts.cut_out(tables[0], *images)
            with measuring() as cost:
                made = alerts.run(*tables, cutouts, processed_mjd_tai=T0)
                alerts.write(space.alerts(unit, 1), made.packets)
            packing.append(cost)
            catalog.insert("alert", ALERT.from_rows(rows(made.packets, unit)))
    return space


def rows(packets: Sequence[alerts.Packet], unit: int) -> list[dict[str, Any]]:
    return [
        {"diaSourceId": p.diaSourceId, "visit": unit, "detector": 1, "emitted": True,
         "position": k, "sizeBytes": len(p.payload), "midpointMjdTai": 59000.0 + unit}
        for k, p in enumerate(packets)
    ]  # fmt: skip


def wrong(space: Workspace) -> int:
    """Alerts that fastavro does not write as they were sent, by the hashes of the outbox."""
    with Catalog(space.catalog, read_only=True) as catalog:
        sent = dict(catalog.fetch("SELECT diaSourceId, contentHash FROM alert_delivery"))
    for path in alert_files([space.root / "alerts"]):
        for packet in alerts.read(path):
            stream = BytesIO()
            fastavro.schemaless_writer(stream, _PARSED, packet)
            digest = hashlib.sha256(stream.getvalue()).hexdigest()[:16]
            if sent.get(packet["diaSourceId"]) == digest:
                del sent[packet["diaSourceId"]]
    return len(sent)


def send(root: Path) -> None:
    """Publish a campaign in a process of its own, whose memory nothing else has filled."""
    with measuring() as cost:
        result = publish_campaign(Workspace(root), "alerts", 1, MOCK)
    print(json.dumps([result.sent, cost.wall_s, cost.cpu_s, cost.peak_rss_mib]))


def main() -> None:
    if sys.argv[1:2] == ["science"]:
        return
    if sys.argv[1:2] == ["send"]:
        send(Path(sys.argv[2]))
        return
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    packing: list[Measure] = []
    with tempfile.TemporaryDirectory() as folder:
        space = campaign(Path(folder) / "w", number, packing)
        words = [sys.executable, "-m", "bench.bench_publish", "send", str(space.root)]
        child = subprocess.run(words, check=True, stdout=subprocess.PIPE)
        sent, wall, cpu, peak = json.loads(child.stdout)
        bad = wrong(space) + number - sent
    population = f"{number} packets of 165 kB"
    wall += sum(cost.wall_s for cost in packing)
    packed = 1000 * sum(cost.cpu_s for cost in packing) / number
    report("pack_and_publish", wall, "s", 45.0 * number / 10_000, population)
    report("pack_cpu", packed, "ms per alert", 2.0, population)
    report("publish_cpu", 1000 * cpu / number, "ms per alert", 2.0, f"{population}, mock included")
    report("publish_memory", peak, "MiB of the process", 500.0, population)
    report("undecodable", bad, "alerts", 0, population)


if __name__ == "__main__":
    main()
