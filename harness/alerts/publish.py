"""Alerts to a Kafka broker: Confluent's framing, at least once, with back-pressure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.alerts.outbox import Outbox, PendingAlert
from harness.catalog import Catalog
from harness.system.text import one_line
from harness.workspace import Workspace
from pipeline.errors import ConfigError, NightjarError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

__all__ = ["Published", "framed", "publish", "publish_campaign", "read_properties"]

_DEFAULTS: Mapping[str, str | int | bool] = {
    "client.id": "nightjar",
    "enable.idempotence": True,
    "linger.ms": 20,
    "queue.buffering.max.messages": 2000,
    "queue.buffering.max.kbytes": 65536,
}
"""What the properties may overrule; the queue is what bounds the memory."""

_SECRET = ("password", "secret", "token", "credential", "pem", "jaas", "username", "conf")


@dataclass(slots=True)
class Published:
    """How publishing ended.

    Attributes
    ----------
    sent : int
        Alerts that the broker has acknowledged.
    refused : list of str
        A line about each alert that it will never take, too large ones for example.
    pending : int
        Alerts that were never delivered.
    trouble : str
        Why it stopped before the end, empty if it did not.
    """

    sent: int = 0
    refused: list[str] = field(default_factory=list)
    pending: int = 0
    trouble: str = ""


def framed(schema_id: int, payload: bytes) -> bytes:
    """Put Confluent's frame before a packet: a zero and the schema's number in four bytes.

    Parameters
    ----------
    schema_id : int
        Number of the schema in the registry, 0 to 2³² - 1.
    payload : bytes
        The packet in Avro's binary encoding.

    Returns
    -------
    bytes
        The message.
    """
    return b"\x00" + schema_id.to_bytes(4, "big") + payload


def read_properties(path: Path) -> dict[str, str]:
    """Read a properties file of librdkafka: ``name=value`` lines, ``#`` begins a comment line.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        Values by name.

    Raises
    ------
    ConfigError
        If it cannot be read or a line is something else; values are never repeated.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(
            f"cannot be read: {err.strerror if isinstance(err, OSError) else 'not UTF-8'}",
            path=path,
        ) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"line {number} is no property", path=path, expected="name=value")
        found[name.strip()] = value.strip()
    return found


def publish_campaign(
    space: Workspace,
    topic: str,
    schema_id: int,
    properties: Mapping[str, str],
    *,
    changed: bool = False,
    timeout_s: float = 60.0,
) -> Published:
    """Send what is pending of a campaign, with nobody else changing it meanwhile.

    Parameters
    ----------
    space : Workspace
        The campaign's folder.
    topic : str
        Topic of the broker.
    schema_id : int
        Number of the schema in its registry.
    properties : mapping
        As in `publish`.
    changed : bool
        Whether alerts are sent again whose content has changed since.
    timeout_s : float, s
        As in `publish`.

    Returns
    -------
    Published
        What was sent, and why it stopped.
    """
    with space.changing("alerts publish"), Catalog(space.catalog) as catalog:
        outbox = Outbox(space, catalog, topic, schema_id, changed)
        return publish(outbox, properties, timeout_s=timeout_s)


def publish(outbox: Outbox, properties: Mapping[str, str], *, timeout_s: float = 60.0) -> Published:
    """Send what is pending and record every acknowledgement.

    Parameters
    ----------
    outbox : Outbox
        The alerts.
    properties : mapping
        Properties of librdkafka; ``bootstrap.servers`` at least.
    timeout_s : float, s
        Longest time to wait for an acknowledgement.

    Returns
    -------
    Published
        What was sent, and why it stopped.

    Raises
    ------
    ConfigError
        If the extra ``kafka`` is not installed or a property is wrong.
    FileFormatError
        If an alert file is not what the catalogue says; what was acknowledged is recorded.
    """
    sender = _Sender(outbox, _producer(properties, timeout_s), timeout_s)
    try:
        for pending in outbox.pending():
            if not sender.send(pending):
                break
    except BaseException as err:
        if not isinstance(err, NightjarError):
            sender.result.trouble = "interrupted"  # what is queued is not waited for
        raise
    finally:
        sender.finish()
        outbox.save()
    sender.result.pending = len(outbox)
    return sender.result


def _producer(properties: Mapping[str, str], timeout_s: float) -> Producer:
    try:
        from confluent_kafka import KafkaException, Producer
    except ImportError:
        raise ConfigError(
            "confluent-kafka is not installed", hint="pip install 'nightjar[kafka]'"
        ) from None
    if not properties.get("bootstrap.servers"):
        raise ConfigError("no broker is given", key="bootstrap.servers", expected="HOST:PORT")
    limit = {"message.timeout.ms": max(1, round(1000 * timeout_s)), "log_level": 0}
    try:
        return Producer({**_DEFAULTS, **limit, **properties})
    except (KafkaException, ValueError, TypeError) as err:
        reason = err.args[0].str() if isinstance(err, KafkaException) else str(err)
        raise ConfigError(
            f"librdkafka refuses a property: {_without_secrets(reason, properties)}"
        ) from None


def _without_secrets(text: str, properties: Mapping[str, str]) -> str:
    """Keep what may be secret out of a message."""
    for name, value in properties.items():
        if value and any(word in name.lower() for word in _SECRET):
            text = text.replace(value, "***")
    return one_line(text)


class _Sender:
    """A producer that stops at the first alert which the broker does not acknowledge in time."""

    def __init__(self, outbox: Outbox, producer: Producer, timeout_s: float) -> None:
        self.result = Published()
        self._outbox, self._producer, self._timeout_s = outbox, producer, timeout_s

    def send(self, pending: PendingAlert) -> bool:
        """Queue an alert, waiting for room; False when there is no point in going on."""
        from confluent_kafka import KafkaError, KafkaException

        message = framed(self._outbox.schema_id, pending.payload)
        deadline = time.monotonic() + 2 * self._timeout_s
        while not self.result.trouble:
            try:
                self._producer.produce(
                    self._outbox.topic,
                    value=message,
                    key=str(pending.number),
                    on_delivery=lambda err, taken: self._note(pending, err, taken),
                )
            except BufferError:  # the queue is full: what is on its way first
                self._producer.poll(0.5)
                if time.monotonic() > deadline:
                    self.result.trouble = "the broker takes nothing"
                continue
            except KafkaException as err:
                if err.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise
                self._refuse(pending, err.args[0])
                return True
            self._producer.poll(0)
            return True
        return False

    def finish(self) -> None:
        """Wait for the acknowledgements on their way, or drop what will not come any more."""
        if self.result.trouble:
            self._producer.purge()
        if self._producer.flush(2 * self._timeout_s) and not self.result.trouble:
            self.result.trouble = "the broker does not acknowledge"

    def _note(self, pending: PendingAlert, err: KafkaError | None, taken: Message) -> None:
        from confluent_kafka import KafkaError

        if err is None:
            self.result.sent += 1
            self._outbox.delivered(pending, taken.partition(), taken.offset())
        elif err.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD):
            self._refuse(pending, err)
        elif not self.result.trouble:
            self.result.trouble = one_line(err.str())

    def _refuse(self, pending: PendingAlert, err: KafkaError) -> None:
        self.result.refused.append(f"alert {pending.number}: {one_line(err.str())}")
