"""Alerts: packets in Avro with history and cut-outs; reading and judging them."""

from __future__ import annotations

from pipeline.alerts.avro import NOISE_LIMIT, SCHEMA_VERSION, packet_schema
from pipeline.alerts.check import ASSERTIONS, Assertion, Check, check
from pipeline.alerts.config import Config
from pipeline.alerts.container import read, write
from pipeline.alerts.packet import Packet, Result, Surroundings, run

__all__ = [
    "ASSERTIONS",
    "NOISE_LIMIT",
    "SCHEMA_VERSION",
    "VERSION",
    "Assertion",
    "Check",
    "Config",
    "Packet",
    "Result",
    "Surroundings",
    "check",
    "packet_schema",
    "read",
    "run",
    "write",
]

VERSION: int = 1
