"""Alerts: packets in Avro with history and cut-outs; reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.alerts.config import Config
from pipeline.lazy import lazy

if TYPE_CHECKING:
    from pipeline.alerts.avro import NOISE_LIMIT, SCHEMA_VERSION, packet_schema
    from pipeline.alerts.container import read, read_payloads, write
    from pipeline.alerts.cutouts import cut_out
    from pipeline.alerts.run import Packet, Result, Surroundings, run

__all__ = [
    "NOISE_LIMIT",
    "SCHEMA_VERSION",
    "VERSION",
    "Config",
    "Packet",
    "Result",
    "Surroundings",
    "cut_out",
    "packet_schema",
    "read",
    "read_payloads",
    "run",
    "write",
]

VERSION: int = 5

# Who reads alerts needs no loops over pixels, and who plans no packets.
__getattr__ = lazy(
    __name__,
    NOISE_LIMIT="avro",
    Packet="run",
    Result="run",
    SCHEMA_VERSION="avro",
    Surroundings="run",
    cut_out="cutouts",
    packet_schema="avro",
    read="container",
    read_payloads="container",
    run="run",
    write="container",
)
