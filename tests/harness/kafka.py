"""librdkafka's own mock cluster, which listens on TCP of this machine."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class MockCluster:
    """One broker that can be taken down and brought up again."""

    library: Any
    handle: int
    servers: str

    def down(self) -> None:
        assert self.library.rd_kafka_mock_broker_set_down(self.handle, 1) == 0

    def up(self) -> None:
        assert self.library.rd_kafka_mock_broker_set_up(self.handle, 1) == 0


def _library() -> Any:
    import confluent_kafka  # noqa: F401  -- loads the library

    maps = Path("/proc/self/maps").read_text().splitlines()
    path = next(line.split()[-1] for line in maps if "librdkafka" in line)
    library = ctypes.CDLL(path)
    for name, result, arguments in (
        ("rd_kafka_conf_new", ctypes.c_void_p, []),
        ("rd_kafka_new", ctypes.c_void_p,
         [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
        ("rd_kafka_mock_cluster_new", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
        ("rd_kafka_mock_cluster_bootstraps", ctypes.c_char_p, [ctypes.c_void_p]),
        ("rd_kafka_mock_broker_set_down", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
        ("rd_kafka_mock_broker_set_up", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
        ("rd_kafka_mock_cluster_destroy", None, [ctypes.c_void_p]),
        ("rd_kafka_destroy", None, [ctypes.c_void_p]),
    ):  # fmt: skip
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def available() -> bool:
    """Whether the extra is installed and the system tells where its library is."""
    return importlib.util.find_spec("confluent_kafka") is not None and Path("/proc/self").exists()


@contextmanager
def mock_cluster() -> Iterator[MockCluster]:
    library = _library()
    words = ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(0, library.rd_kafka_conf_new(), words, 512)
    assert client, words.value
    handle = library.rd_kafka_mock_cluster_new(client, 1)
    servers = library.rd_kafka_mock_cluster_bootstraps(handle).decode()
    try:
        yield MockCluster(library, handle, servers)
    finally:
        library.rd_kafka_mock_cluster_destroy(handle)
        library.rd_kafka_destroy(client)
