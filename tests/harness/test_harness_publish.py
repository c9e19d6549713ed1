"""Alerts to a broker: librdkafka's mock cluster over TCP stands for it."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

from harness.alerts.entries import alert_files, read_alerts
from harness.alerts.outbox import Outbox
from harness.alerts.publish import framed, publish, read_properties
from harness.catalog import Catalog
from harness.cli.main import execute
from harness.workspace import Workspace
from pipeline import alerts
from pipeline.errors import ConfigError, FileFormatError
from tests.harness.kafka import MockCluster, available, mock_cluster

pytestmark = pytest.mark.skipif(not available(), reason="confluent-kafka is not installed")

TOPIC, SCHEMA, OTHER = "alerts", 257, 2
_parsed = fastavro.parse_schema(alerts.packet_schema())


@pytest.fixture
def broker() -> Iterator[MockCluster]:
    with mock_cluster() as cluster:
        yield cluster


@pytest.fixture
def space(campaign: Path, tmp_path: Path) -> Workspace:
    """What publishing needs of a campaign: one detector, for the mock keeps 5 MB of a partition."""
    root = tmp_path / "w"
    root.mkdir()
    for name in ("nightjar.toml", "catalog.duckdb"):
        shutil.copy(campaign / name, root / name)
    others = shutil.ignore_patterns(f"*_{OTHER:02d}.avro")
    shutil.copytree(campaign / "alerts", root / "alerts", ignore=others)
    with Catalog(root / "catalog.duckdb") as catalog:
        catalog.delete("alert", detector=OTHER)
    return Workspace(root)


@pytest.fixture
def expected(campaign: Path) -> dict[int, dict[str, Any]]:
    packets = read_alerts(alert_files([campaign]))
    return {p["diaSourceId"]: p for p in packets if p["diaSource"]["detector"] != OTHER}


def _received(servers: str, number: int) -> list[tuple[int, dict[str, Any]]]:
    """Read messages as any consumer would: frame, schema, packet."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "t", "auto.offset.reset": "earliest",
         "log_level": 0}
    )  # fmt: skip
    consumer.subscribe([TOPIC])
    found: list[tuple[int, dict[str, Any]]] = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None or message.error():
            if len(found) >= number:
                break
            continue
        value = message.value()
        assert value[:5] == b"\x00\x00\x00\x01\x01"
        stream = io.BytesIO(value[5:])
        found.append((int(message.key()), fastavro.schemaless_reader(stream, _parsed, None)))
        assert not stream.read()
    consumer.close()
    return found


def _publish(space: Workspace, servers: str, *, changed: bool = False, timeout_s: float = 20.0,
             **properties: str) -> Any:  # fmt: skip
    with Catalog(space.catalog) as catalog:
        outbox = Outbox(space, catalog, TOPIC, SCHEMA, changed)
        return publish(outbox, {"bootstrap.servers": servers, **properties}, timeout_s=timeout_s)


def test_every_alert_arrives_once_and_as_it_is_in_the_file(
    space: Workspace, broker: MockCluster, expected: dict[int, dict[str, Any]]
) -> None:
    result = _publish(space, broker.servers)
    assert (result.sent, result.pending, result.trouble) == (len(expected), 0, "")
    received = _received(broker.servers, len(expected))
    assert sorted(key for key, _ in received) == sorted(expected)
    assert all(repr(packet) == repr(expected[key]) for key, packet in received)

    assert _publish(space, broker.servers).sent == 0
    with Catalog(space.catalog, read_only=True) as catalog:
        rows = catalog.rows("SELECT * FROM alert_delivery")
    assert {row["diaSourceId"] for row in rows} == set(expected)
    assert {row["schemaId"] for row in rows} == {SCHEMA}
    assert len({(row["brokerPartition"], row["brokerOffset"]) for row in rows}) == len(rows)


def test_a_broker_that_is_down_leaves_everything_in_the_outbox_until_it_is_up(
    space: Workspace, broker: MockCluster, expected: dict[int, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    broker.down()
    words = ["alerts", "publish", str(space.root), "--topic", TOPIC, "--schema-id", str(SCHEMA),
             "--broker", broker.servers]  # fmt: skip
    assert execute([*words, "--timeout", "1"]) == 4
    captured = capsys.readouterr()
    assert f"0 alerts sent to {TOPIC}, {len(expected)} still to be sent" in captured.out
    assert len(captured.err.splitlines()) == 1
    assert "run the same command again" in captured.err

    broker.up()
    assert execute(words) == 0
    assert f"{len(expected)} alerts sent" in capsys.readouterr().out
    assert sorted(key for key, _ in _received(broker.servers, len(expected))) == sorted(expected)


def test_a_broker_lost_on_the_way_costs_no_alert(
    space: Workspace, broker: MockCluster, expected: dict[int, dict[str, Any]]
) -> None:
    with Catalog(space.catalog) as catalog:
        outbox, letters = Outbox(space, catalog, TOPIC, SCHEMA), []

        def interrupted() -> Iterator[Any]:
            for letter in type(outbox).pending(outbox):
                letters.append(letter)
                if len(letters) == len(expected) // 2:
                    broker.down()
                yield letter

        class Breaking(Outbox):
            def pending(self) -> Iterator[Any]:
                return interrupted()

        breaking = Breaking(space, catalog, TOPIC, SCHEMA)
        properties = {"bootstrap.servers": broker.servers, "queue.buffering.max.messages": "5"}
        result = publish(breaking, properties, timeout_s=1.0)
    assert 0 < result.sent < len(expected)
    assert result.pending == len(expected) - result.sent
    assert result.trouble
    broker.up()
    assert _publish(space, broker.servers).pending == 0
    keys = [key for key, _ in _received(broker.servers, len(expected))]
    assert set(keys) == set(expected)  # at least once


def test_what_died_between_acknowledgement_and_record_is_sent_again(
    space: Workspace, broker: MockCluster, expected: dict[int, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    class Killed(BaseException):
        pass

    def killed(_: Outbox) -> None:
        raise Killed

    monkeypatch.setattr(Outbox, "save", killed)
    with pytest.raises(Killed):
        _publish(space, broker.servers)
    monkeypatch.undo()
    assert _publish(space, broker.servers).sent == len(expected)
    keys = [key for key, _ in _received(broker.servers, len(expected))]
    assert set(keys) == set(expected)


def test_only_changed_alerts_are_sent_again_and_only_when_asked(
    space: Workspace, broker: MockCluster
) -> None:
    _publish(space, broker.servers)
    with Catalog(space.catalog) as catalog:
        numbers = catalog.fetch("SELECT diaSourceId FROM alert_delivery ORDER BY 1 LIMIT 3")
        for (number,) in numbers:
            catalog.fetch(
                "UPDATE alert_delivery SET contentHash = 'x' WHERE diaSourceId = ?", [number]
            )
    assert _publish(space, broker.servers).sent == 0
    assert _publish(space, broker.servers, changed=True).sent == 3
    assert _publish(space, broker.servers, changed=True).sent == 0


def test_an_alert_that_is_too_large_is_named_and_the_rest_goes_on(
    space: Workspace, broker: MockCluster, expected: dict[int, dict[str, Any]]
) -> None:
    with Catalog(space.catalog, read_only=True) as catalog:
        sizes = dict(catalog.fetch("SELECT diaSourceId, sizeBytes FROM alert WHERE emitted"))
    limit = sorted(sizes.values())[len(sizes) // 2]
    result = _publish(space, broker.servers, **{"message.max.bytes": str(limit)})
    refused = {int(line.split(":")[0].removeprefix("alert ")) for line in result.refused}
    assert {n for n, size in sizes.items() if size > limit} <= refused
    assert refused <= {n for n, size in sizes.items() if size > limit - 2000}  # frame and key
    assert 0 < result.sent == len(expected) - len(refused)
    assert result.pending == len(refused) == len(result.refused)


def test_files_that_are_not_what_the_catalogue_says_are_refused(
    space: Workspace, broker: MockCluster, campaign: Path
) -> None:
    path = alert_files([space.root])[-1]
    with Catalog(space.catalog) as catalog:
        visit, detector = map(int, path.stem.split("_"))
        catalog.fetch(
            "UPDATE alert SET sizeBytes = sizeBytes + 1 WHERE visit = ? AND detector = ?",
            [visit, detector],
        )
    with pytest.raises(FileFormatError, match="other alerts than the catalogue"):
        _publish(space, broker.servers)
    path.unlink()
    with pytest.raises(FileFormatError, match="No such file"):
        _publish(space, broker.servers)


def test_payloads_are_the_bytes_that_fastavro_writes(campaign: Path) -> None:
    with Catalog(campaign / "catalog.duckdb", read_only=True) as catalog:
        for path in alert_files([campaign]):
            unit = list(map(int, path.stem.split("_")))
            sizes = [row[0] for row in catalog.fetch(
                "SELECT sizeBytes FROM alert WHERE emitted AND visit = ? AND detector = ? "
                "ORDER BY position", unit)]  # fmt: skip
            payloads = list(alerts.read_payloads(path, sizes))
            for payload, packet in zip(payloads, read_alerts([path]), strict=True):
                stream = io.BytesIO()
                fastavro.schemaless_writer(stream, _parsed, packet)
                assert stream.getvalue() == payload


def test_frame() -> None:
    assert framed(258, b"abc") == b"\x00\x00\x00\x01\x02abc"


def test_secrets_stay_in_the_properties_file(
    space: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "s3cr3t-word"
    path = tmp_path / "broker.properties"
    path.write_text(
        "# our broker\nbootstrap.servers = localhost:1\n"
        f"sasl.password={secret}\nssl.ca.pem={secret}\n"
    )
    assert read_properties(path)["sasl.password"] == secret
    words = ["alerts", "publish", str(space.root), "--topic", TOPIC, "--schema-id", "1",
             "--properties", str(path), "--timeout", "1"]  # fmt: skip
    assert execute(words) != 0
    captured = capsys.readouterr()
    assert secret not in captured.out + captured.err
    hashes = [p for p in space.root.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]
    assert not hashes

    path.write_text(f"sasl.password {secret}\n")
    with pytest.raises(ConfigError) as caught:
        read_properties(path)
    assert "line 1" in str(caught.value)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [("", "no broker is given"), ("bootstrap.servers=x\nno.such=1", "no.such")],
)
def test_wrong_properties_are_one_line(
    space: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    path = tmp_path / "p"
    path.write_text(line)
    assert execute(["alerts", "publish", str(space.root), "--topic", "t", "--schema-id", "1",
                    "--properties", str(path)]) == 2  # fmt: skip
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_the_schema_for_a_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["alerts", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == alerts.packet_schema()
