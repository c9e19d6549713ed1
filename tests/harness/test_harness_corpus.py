"""A corpus of damaged raw files: no unit takes more than itself down, or ends without a cause."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.catalog import Catalog
from harness.cli.main import execute
from pipeline import io
from pipeline.schema import TABLES

VISIT = 411420
FILES = 1000 if os.environ.get("NIGHTJAR_SOAK") else 100
BLOCK = 2880
Damage = Callable[[np.random.Generator, Path, bytes], None]

HOSTILE = (
    "0", "-1", "2", "999", "2147483647", "99999999999999999999", "1E308", "NAN", "T", "'x'", "''",
    "'unterminated", "", "1.5", "'1PB(99999999)'", "-32",
)  # fmt: skip


def bytewise(change: Callable[[np.random.Generator, bytearray], bytes | bytearray]) -> Damage:
    def write(rng: np.random.Generator, path: Path, data: bytes) -> None:
        path.write_bytes(change(rng, bytearray(data)))

    return write


def truncated(rng: np.random.Generator, data: bytearray) -> bytearray:
    return data[: rng.integers(0, len(data))]


def cut_at_a_block(rng: np.random.Generator, data: bytearray) -> bytearray:
    return data[: BLOCK * rng.integers(1, len(data) // BLOCK)]


def bits_flipped(rng: np.random.Generator, data: bytearray) -> bytearray:
    for place in rng.integers(0, len(data), rng.integers(1, 20)):
        data[place] ^= 1 << int(rng.integers(8))
    return data


def block_changed(rng: np.random.Generator, data: bytearray) -> bytearray:
    place = BLOCK * int(rng.integers(0, len(data) // BLOCK))
    data[place : place + BLOCK] = rng.bytes(BLOCK) if rng.random() < 0.5 else bytes(BLOCK)
    return data


def block_lost(rng: np.random.Generator, data: bytearray) -> bytearray:
    place = BLOCK * int(rng.integers(0, len(data) // BLOCK))
    del data[place : place + BLOCK]
    return data


def blocks_swapped(rng: np.random.Generator, data: bytearray) -> bytearray:
    a, b = (BLOCK * int(k) for k in rng.integers(0, len(data) // BLOCK, 2))
    data[a : a + BLOCK], data[b : b + BLOCK] = data[b : b + BLOCK], data[a : a + BLOCK]
    return data


def card_changed(rng: np.random.Generator, data: bytearray) -> bytearray:
    places = [m.start() for m in re.finditer(rb"[A-Z][A-Z0-9_-]{2,7} *= ", data)]
    cards = [p for p in places if p % 80 == 0]
    place = cards[rng.integers(len(cards))]
    value = HOSTILE[rng.integers(len(HOSTILE))]
    data[place + 10 : place + 80] = f"{value:>20}".ljust(70).encode()
    return data


def card_overwritten(rng: np.random.Generator, data: bytearray) -> bytearray:
    place = 80 * int(rng.integers(0, 3 * BLOCK // 80))
    data[place : place + 80] = rng.bytes(80)
    return data


def half_a_gzip(rng: np.random.Generator, data: bytearray) -> bytes:
    packed = gzip.compress(bytes(data), 1)
    return packed[: rng.integers(3, len(packed))]


def something_else(rng: np.random.Generator, _: bytearray) -> bytes:
    others = (b"", b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>\n",
              rng.bytes(9000), b"SIMPLE  = " + b" " * 5000, b"PAR1" * 99)  # fmt: skip
    return others[rng.integers(len(others))]


def bomb(_: np.random.Generator, path: Path, __: bytes) -> None:
    with gzip.open(path, "wb", 1) as stream:
        for _ in range(400):
            stream.write(bytes(1 << 20))


def sparse(_: np.random.Generator, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    os.truncate(path, 1 << 40)


def no_file(rng: np.random.Generator, path: Path, _: bytes) -> None:
    (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path), lambda: None)[
        rng.integers(4)
    ]()


DAMAGES: tuple[Damage, ...] = (
    *(bytewise(f) for f in (truncated, cut_at_a_block, bits_flipped, bits_flipped, block_changed,
                            block_lost, blocks_swapped, card_changed, card_changed, card_changed,
                            card_changed, card_overwritten, half_a_gzip, something_else)),
    sparse,
    no_file,
)  # fmt: skip


@pytest.fixture
def damaged(simulated: Path, tmp_path: Path) -> Path:
    """A workspace whose raw files are all damaged, each in its own way."""
    root = tmp_path / "damaged"
    assert execute(["init", str(root), "--profile", "tiny"]) == 0
    whole = (simulated / "raw" / f"{VISIT}.fits.fz").read_bytes()
    rows = io.read_parquet(simulated / "raw" / "exposures.parquet").to_pylist()
    (row,) = (r for r in rows if r["visit"] == VISIT)
    rng, exposures = np.random.default_rng(20150217), []
    for number in range(FILES):
        visit = 900000 + number
        data = whole.replace(b"= %20d" % VISIT, b"= %20d" % visit)
        name = f"raw/{visit}.fits.fz"
        exposures.append(exposure(row, visit, name, data))
        damage = bomb if number == 7 else DAMAGES[number % len(DAMAGES)]
        damage(rng, root / name, data)
    io.write_parquet(root / "raw" / "exposures.parquet", TABLES["exposure"].from_rows(exposures))
    return root


def exposure(row: dict[str, Any], visit: int, name: str, data: bytes) -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    return {**row, "visit": visit, "file": name, "sha256": sha256}


@pytest.mark.slow
def test_every_unit_of_a_damaged_file_ends_with_a_cause_and_one_line(damaged: Path) -> None:
    command = [sys.executable, "-m", "harness.cli.main", "run", str(damaged), "-q", "-j", "2",
               "--set", "execution.unit_time_limit=120"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 1, done.stderr
    with Catalog(damaged / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.rows("SELECT * FROM unit WHERE stage = 'isr'")
    assert len(rows) == 2 * FILES
    odd = [r for r in rows if (r["status"], r["cause"]) != ("failed", "BAD_INPUT")]
    assert not [(r["visit"], r["status"], r["cause"], r["message"]) for r in odd]
    assert not [r["message"] for r in rows if not r["message"] or "\n" in r["message"]]
    assert max(r["peakRssMiB"] for r in rows) < 1500
