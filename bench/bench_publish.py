"""Alerts to a broker, read from files and acknowledged, as JSON lines.

``speed [NUMBER]``: librdkafka's mock cluster, in this process but reached over TCP, takes NUMBER
(10,000) packets of 165 kB.  Times are elapsed ones, the broker's work included; ``science`` has
nothing to measure.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness.alerts.publish import publish_campaign
from harness.catalog import Catalog
from harness.workspace import Workspace
from pipeline import alerts
from pipeline.alerts.avro import long
from pipeline.schema import ALERT

_PER_UNIT = 500
_SIZE = 165_000
MOCK = {"test.mock.num.brokers": "1", "bootstrap.servers": "mock"}


def report(name: str, value: float, unit: str, bound: float, population: str) -> None:
    print(
        json.dumps(
            {"name": name, "stage": "alerts", "value": round(value, 4), "unit": unit,
             "bound": bound, "goal": bound, "holds": bool(value <= bound),
             "population": population}
        ), flush=True,
    )  # fmt: skip


def campaign(root: Path, number: int) -> Workspace:
    """Files of packets whose content is noise, which nothing on the way looks at."""
    space = Workspace.create(root)
    noise = np.random.default_rng(1).bytes(_SIZE)
    rows: list[dict[str, Any]] = []
    for unit in range(-(-number // _PER_UNIT)):
        ids = range(unit * _PER_UNIT + 1, min((unit + 1) * _PER_UNIT, number) + 1)
        packets = [alerts.Packet(i, long(i) + noise) for i in ids]
        alerts.write(space.alerts(unit, 1), packets)
        rows += [
            {"diaSourceId": p.diaSourceId, "visit": unit, "detector": 1, "emitted": True,
             "position": k, "sizeBytes": len(p.payload), "midpointMjdTai": 59000.0 + unit}
            for k, p in enumerate(packets)
        ]  # fmt: skip
    with Catalog(space.catalog) as catalog:
        catalog.insert("alert", ALERT.from_rows(rows))
    return space


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    if sys.argv[1:2] == ["science"]:
        return
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        space = campaign(Path(folder) / "w", number)
        start, cpu = time.perf_counter(), time.process_time()
        result = publish_campaign(space, "alerts", 1, MOCK)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert (result.sent, result.pending) == (number, 0), result
    population = f"{number} packets of 165 kB"
    report("publish", wall, "s", 45.0 * number / 10_000, population)
    report("publish_cpu", 1000 * cpu / number, "ms per alert", 2.0, population)
    report("publish_memory", peak_mib(), "MiB of the process", 500.0, population)


if __name__ == "__main__":
    main()
