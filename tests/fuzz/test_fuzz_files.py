"""Files that ask for more memory than they are worth: one line each, and no memory."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest
from astropy.io import fits
from fastavro.utils import generate_one
from numpy.testing import assert_array_equal

from pipeline import alerts, io
from pipeline.alerts.avro import long, packet_schema, text
from pipeline.errors import FileFormatError
from pipeline.io import sizes
from pipeline.io.planes import Planes, read_planes

LIMIT_MB = 500.0
MIB = 1 << 20

CHILD = """
import contextlib, io, json, re, sys
from pathlib import Path
from harness.cli.main import execute
lines = []
for arguments in json.load(sys.stdin):
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err):
        code = execute(arguments)
    lines.append([code, err.getvalue()])
# Not the peak of getrusage: that is never less than what the parent had.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({"lines": lines, "peak": peak}))
"""


def run_all(commands: list[list[str]]) -> tuple[list[tuple[int, str]], float]:
    """Exit code and output of each command, and the peak memory of all (MB)."""
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD],
        input=json.dumps(commands), capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    found = json.loads(child.stdout.splitlines()[-1])
    return [(code, said) for code, said in found["lines"]], found["peak"]


def header(**cards: object) -> bytes:
    """One header block by hand; astropy refuses to write most of these."""
    lines = [f"{key.replace('_', '-'):8}= {_value(value):>20}" for key, value in cards.items()]
    text_ = "".join(line.ljust(80) for line in [*lines, "END"])
    return text_.ljust(-(-len(text_) // 2880) * 2880).encode("ascii")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    return f"'{value:8}'" if isinstance(value, str) else str(value)


def primary(*sides: int, bitpix: int = -32) -> bytes:
    axes = {f"NAXIS{k}": side for k, side in enumerate(sides, 1)}
    return header(SIMPLE=True, BITPIX=bitpix, NAXIS=len(sides), **axes)


def tiled(
    nx: int, ny: int, tile: bytes, algorithm: str = "GZIP_1", tall: int | None = None
) -> bytes:
    """A compressed image of one tile."""
    table = header(
        XTENSION="BINTABLE", BITPIX=8, NAXIS=2, NAXIS1=8, NAXIS2=1, PCOUNT=len(tile), GCOUNT=1,
        TFIELDS=1, TTYPE1="COMPRESSED_DATA", TFORM1=f"1PB({len(tile)})", ZIMAGE=True,
        ZCMPTYPE=algorithm, ZBITPIX=32, ZNAXIS=2, ZNAXIS1=nx, ZNAXIS2=ny, ZTILE1=nx,
        ZTILE2=tall or ny,
    )  # fmt: skip
    data = np.array([len(tile), 0], ">i4").tobytes() + tile
    return (
        header(SIMPLE=True, BITPIX=8, NAXIS=0, EXTEND=True)
        + table
        + data
        + bytes(-len(data) % 2880)
    )


def zeros(size: int, window: int = 16 + zlib.MAX_WBITS) -> bytes:
    """So many zeros, deflated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    parts = [packer.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join([*parts, packer.flush()])


def sparse(path: Path, start: bytes, size: int) -> Path:
    """A file that ends far beyond what is written; skipped where the disk cannot."""
    with path.open("wb") as stream:
        stream.write(start)
        try:
            stream.truncate(size)
        except OSError:
            pytest.skip("no sparse files here")
    return path


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small files that would be large."""
    folder = tmp_path_factory.mktemp("bombs")
    block = zeros(64 * MIB)
    first = gzip.compress(primary(40000, 40000))
    wide = header(SIMPLE=True, BITPIX=-32, NAXIS=999, **{f"NAXIS{k}": 1 for k in range(1, 1000)})
    hcompress = b"\xdd\x99" + np.array([50000, 50000], ">i4").tobytes() + bytes(100)
    files = {
        "gzip.fits.gz": first + block * 100,
        "bzip2.fits.bz2": bz2.compress(primary(40000, 40000)) + bz2.compress(bytes(64 * MIB)) * 100,
        "terabyte.fits": primary(10**6, 10**6),
        "naxis999.fits": primary()[:160] + header(NAXIS=999)[:80] + primary()[240:],
        "naxis_e20.fits": primary()[:160] + header(NAXIS=10**20)[:80] + primary()[240:],
        "znaxis_e20.fits": tiled(100, 100, zeros(MIB)).replace(
            b"ZNAXIS  =                    2", b"ZNAXIS  = 99999999999999999999"
        ),
        "tfields_e20.fits": tiled(100, 100, zeros(MIB)).replace(
            b"TFIELDS =                    1", b"TFIELDS = 99999999999999999999"
        ),
        "naxis999_ones.fits": wide + bytes(2880),
        "minus.fits": primary(-5, 40) + bytes(2880),
        "cube.fits": primary(20, 20, 20) + bytes(34560),
        "hypercube.fits": primary(10**5, 10**5, 10**5),
        "tile_declares.fits": tiled(10**6, 10**6, zeros(MIB)),
        "tile_unpacks.fits": tiled(100, 100, zeros(512 * MIB)),
        "tile_rows.fits": tiled(100, 100, zeros(512 * MIB), tall=10**7),
        "tile_hcompress.fits": tiled(100, 100, hcompress, "HCOMPRESS_1"),
        "tile_rice.fits": tiled(10**5, 3 * 10**4, bytes(100), "RICE_1", 1),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    paths = [folder / name for name in files]
    return [*paths, sparse(folder / "sparse.fits", primary(10**6, 10**6), 4 * 10**12 + 5760)]


def _judge(lines: list[tuple[int, str]], peak: float, paths: list[Path]) -> None:
    for path, (code, said) in zip(paths, lines, strict=True):
        assert code == 2, (path.name, said)
        assert "internal" not in said, (path.name, said)
        assert path.name in said
        assert len(said.strip().splitlines()) == 1, said
    assert peak < LIMIT_MB


def test_subtract_refuses_each_in_one_line_without_memory(bombs: list[Path]) -> None:
    commands = [["subtract", str(p), str(p), "-o", str(p.parent / "out")] for p in bombs]

    _judge(*run_all(commands), bombs)


def test_ingest_refuses_each_in_one_line_without_memory(bombs: list[Path], tmp_path: Path) -> None:
    for camera in ("generic", "decam"):
        space = str(tmp_path / camera)
        commands = [["init", space, "--camera", camera]]
        lines, peak = run_all(commands + [["ingest", space, str(p)] for p in bombs])

        assert lines[0][0] == 0, lines[0]
        for path, (code, said) in zip(bombs, lines[1:], strict=True):
            assert code == 2, (path.name, said)
            assert "internal" not in said
            assert path.name in said
        assert peak < LIMIT_MB


@pytest.fixture(params=[("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """The same image, plain and packed."""
    suffix, pack = request.param
    image = np.random.default_rng(5).normal(600.0, 20.0, (100, 120)).astype(np.float32)
    plain = tmp_path / "image.fits"
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 5.0, "CRPIX1": 60.0,
        "CRPIX2": 50.0, "CD1_1": -1e-4, "CD2_2": 1e-4, "FILTER": "r", "EXPTIME": 30.0,
        "DATE-OBS": "2020-01-02T03:04:05", "GAIN": 2.0,
    }  # fmt: skip
    fits.writeto(plain, image, fits.Header(cards))
    squeezed = tmp_path / f"image.fits.{suffix}"
    squeezed.write_bytes(pack(plain.read_bytes()))
    return plain, squeezed


def test_packed_images_are_read(packed: tuple[Path, Path]) -> None:
    plain, squeezed = (io.read_generic(path, 1) for path in packed)

    assert_array_equal(squeezed.image, plain.image)
    assert repr(squeezed.info) == repr(plain.info)  # NaN equals nothing
    assert_array_equal(read_planes(Planes(packed[1])).image, read_planes(Planes(packed[0])).image)


@pytest.mark.parametrize("cut", [3, 100, 2000])
def test_truncated_packed_images_are_damaged(packed: tuple[Path, Path], cut: int) -> None:
    _, squeezed = packed
    squeezed.write_bytes(squeezed.read_bytes()[:-cut])

    with pytest.raises(FileFormatError, match="damaged"):
        io.read_generic(squeezed, 1)


def test_an_empty_mask_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "mask.fits.gz"
    fits.writeto(path, np.zeros((2000, 4000), np.int32))

    assert path.stat().st_size * 200 < 32e6
    assert read_planes(Planes(path)).image.shape == (2000, 4000)


@pytest.mark.parametrize("kind", ["GZIP_1", "GZIP_2", "RICE_1", "HCOMPRESS_1"])
def test_honest_tiles_are_read(tmp_path: Path, kind: str) -> None:
    image = np.random.default_rng(6).integers(0, 900, (60, 70)).astype(np.int32)
    path = tmp_path / "tiles.fits.fz"
    hdu = fits.CompImageHDU(image, compression_type=kind, tile_shape=(20, 70))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)

    assert_array_equal(read_planes(Planes(path)).image, image)


def test_a_large_file_may_unpack_to_more(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(bytes(10 * MIB))

    assert sizes.largest(path) == max(sizes.FREE, sizes.RATIO * 10 * MIB)


Avro = Callable[[bytes], bytes]


def container(block: bytes, codec: str = "null", schema: object = None) -> bytes:
    described = json.dumps(schema or packet_schema())
    metadata = [text("avro.schema"), text(described), text("avro.codec"), text(codec)]
    return b"Obj\x01" + long(2) + b"".join(metadata) + b"\x00" + b"S" * 16 + block


def framed(count: int, data: bytes, size: int | None = None) -> bytes:
    return long(count) + long(len(data) if size is None else size) + data + b"S" * 16


def record(**types: object) -> dict[str, object]:
    return {
        "type": "record", "name": "alert",
        "fields": [{"name": name, "type": kind} for name, kind in types.items()],
    }  # fmt: skip


NULLS = record(diaSourceId="long", row={"type": "array", "items": "null"})
TEXT = record(diaSourceId="long", words="string")
ALERTS = {
    "records": container(framed(2**60, b"abc")),
    "bytes": container(framed(1, b"abc", size=2**60)),
    "negative": container(framed(1, b"abc", size=-4)),
    "deflate": container(framed(1, zeros(600 * MIB, -15)), "deflate"),
    "bzip2": container(framed(1, bz2.compress(bytes(600 * MIB))), "bzip2"),
    "xz": container(framed(1, lzma.compress(bytes(600 * MIB), preset=0)), "xz"),
    "nulls": container(framed(1, long(1) + long(2**60)), schema=NULLS),
    "empty_records": container(framed(2**40, b"a" * 9), schema=record()),
    "long_text": container(framed(1, long(1) + long(2**60) + b"abc"), schema=TEXT),
    "no_end": container(framed(1, b"abc")[:-9]),
    "other_end": container(framed(1, b"abc")[:-1] + b"T"),
    "long_number": container(b"\xff" * 40),
    "metadata": b"Obj\x01" + long(1) + long(2**60),
    "nested": container(b"", schema=json.loads('{"type":' * 80 + '"long"' + "}" * 80)),
}


def test_alerts_check_refuses_each_in_one_line_without_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.avro" for name in ALERTS]
    for path, data in zip(paths, ALERTS.values(), strict=True):
        path.write_bytes(data)

    _judge(*run_all([["alerts", "check", str(path)] for path in paths]), paths)


def test_garbage_behind_the_header_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    path = tmp_path / "garbage.avro"
    for size in rng.integers(1, 400, 60):
        path.write_bytes(container(rng.integers(0, 256, size).astype(np.uint8).tobytes()))
        with pytest.raises(FileFormatError):
            list(alerts.read(path))


# -- alerts of any origin

FILES = int(os.environ.get("NIGHTJAR_FUZZ_FILES", "60"))
STRANGE: tuple[Any, ...] = (
    None, "", "word", -1, 0, 2**62, float("nan"), float("inf"), -1e300, True, b"", b"SIMPLE",
    [], {}, [None], ["a", 1.0], {"midpointMjdTai": "now"},
)  # fmt: skip


def cutout(side: int = 51) -> bytes:
    stream = BytesIO()
    plane = np.random.default_rng(1).normal(size=(side, side)).astype(np.float32)
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": 1e-4, "CD2_2": 1e-4})
    planes = [fits.PrimaryHDU(plane, header), fits.ImageHDU(plane**2, name="UNCERT"),
              fits.ImageHDU(np.zeros((side, side), np.int32), name="MASK"),
              fits.ImageHDU(plane, name="PSFIMAGE")]  # fmt: skip
    fits.HDUList(planes).writeto(stream)
    return stream.getvalue()


def flipped(rng: np.random.Generator, data: bytes, most: int = 40) -> bytes:
    """Change some bytes, and now and then lose or repeat a piece."""
    changed = bytearray(data)
    for at in rng.integers(0, len(changed), rng.integers(1, most)):
        changed[at] = rng.integers(0, 256)
    first, last = sorted(rng.integers(0, len(changed), 2))
    if (kind := rng.integers(0, 6)) == 0:
        del changed[first:last]
    elif kind == 1:
        changed[first:first] = changed[first : min(last, first + 200)]
    return bytes(changed)


def packet(rng: np.random.Generator) -> dict[str, Any]:
    """One alert of random values; some of its fields hold what they should not."""
    found: dict[str, Any] = generate_one(packet_schema())
    for name in ("cutoutDifference", "cutoutScience", "cutoutTemplate"):
        found[name] = flipped(rng, cutout()) if rng.random() < 0.5 else cutout()
    places = [found, found["diaSource"], found.get("diaObject"), found.get("ssSource")]
    places += [*(found.get("prvDiaSources") or [])[:3]]
    for place in filter(None, places):
        for name in rng.choice(list(place), rng.integers(0, 6)):
            place[name] = STRANGE[rng.integers(0, len(STRANGE))]
    return found


def anything(depth: int = 3) -> list[Any]:
    """A schema that takes all of these, so many levels deep."""
    scalars = ["null", "boolean", "long", "double", "string", "bytes"]
    if not depth:
        return scalars
    below = anything(depth - 1)
    return [*scalars, {"type": "array", "items": below}, {"type": "map", "values": below}]


def damaged(seed: int) -> bytes:
    """A file with valid bytes and strange values, or a valid one with strange bytes."""
    rng = np.random.default_rng(seed)
    stream = BytesIO()
    if seed % 2:
        strange = packet(rng)
        fields = [{"name": name, "type": anything()} for name in strange]
        schema = {"type": "record", "name": "alert", "fields": fields}
        fastavro.writer(stream, schema, [strange])
        return stream.getvalue()
    valid: dict[str, Any] = generate_one(packet_schema())
    valid |= dict.fromkeys(("cutoutDifference", "cutoutScience"), cutout())
    fastavro.writer(stream, packet_schema(), [valid], codec=("null", "deflate")[seed // 2 % 2])
    return flipped(rng, stream.getvalue())


def test_damaged_alert_files_end_in_a_verdict_or_one_line(tmp_path: Path) -> None:
    commands = []
    for seed in range(FILES):
        path = tmp_path / f"{seed}.avro"
        path.write_bytes(damaged(seed))
        commands.append(["alerts", "check", "--json", str(path)])
    found, peak = run_all(commands)
    for seed, (code, said) in enumerate(found):
        assert code in (0, 1, 2), (seed, code, said[-300:])
        assert "Traceback" not in said, (seed, said[-300:])
        if code == 2:
            assert said.count("\n") == 1, (seed, said)
            assert f"{seed}.avro" in said
    assert {code for code, _ in found} >= {1, 2}
    assert peak < LIMIT_MB


ZTF = record(objectId="string", candid="long", candidate={**record(jd="double"), "name": "cand"})


def test_files_of_others_get_one_line_that_says_what_they_are(tmp_path: Path) -> None:
    """As brokers and users have them."""
    ztf, other, framed_ = (tmp_path / f"{name}.avro" for name in ("ztf", "other", "framed"))
    with ztf.open("wb") as stream:
        fastavro.writer(stream, ZTF, [{"objectId": "Z", "candid": 1, "candidate": {"jd": 2.0}}])
    with other.open("wb") as stream:
        fastavro.writer(stream, TEXT, [{"diaSourceId": 1, "words": "no alert"}])
    bare = BytesIO()
    fastavro.schemaless_writer(bare, packet_schema(), generate_one(packet_schema()))
    framed_.write_bytes(b"\0" + (917).to_bytes(4, "big") + bare.getvalue())
    schema = tmp_path / "schema.avsc"
    schema.write_text(json.dumps(packet_schema()))
    found, _ = run_all(
        [
            *(["alerts", "check", str(path)] for path in (ztf, other, framed_)),
            ["alerts", "check", str(framed_), "--schema", str(schema)],
            ["alerts", "check", str(ztf), "--schema", str(other), str(framed_)],
        ]
    )
    assert [code for code, _ in found] == [2, 2, 2, 1, 2]
    assert "layout of ZTF" in found[0][1]
    assert "diaSourceId, words" in found[1][1]
    assert "of schema 917" in found[2][1]
    assert "--schema" in found[2][1]
    assert "1 alerts" in found[3][1]
    assert found[4][1].count("\n") == 2  # the second file is looked at although the first failed


def test_packed_and_joined_alert_files_are_named(tmp_path: Path) -> None:
    stream = BytesIO()
    fastavro.writer(stream, TEXT, [{"diaSourceId": 1, "words": "no alert"}])
    whole = stream.getvalue()
    files = {
        "a.avro.gz": (gzip.compress(whole), "packed by gzip: unpack it first"),
        "b.avro.bz2": (bz2.compress(whole), "packed by bzip2"),
        "c.avro.xz": (lzma.compress(whole), "packed by xz"),
        "d.json": (b'{"diaSourceId": 1}\n', "is JSON"),
        "e.fits": (b"SIMPLE  =                    T".ljust(2880), "is a FITS file"),
        "f.avro": (b"", "is empty"),
        "g.avro": (whole + whole, "another container behind 1 blocks"),
        "h.avro": (b"{\x00\x02\xff" * 9, "not an Avro container"),
    }
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    found, _ = run_all([["alerts", "check", str(tmp_path / name)] for name in files])
    for (name, (_, words)), (code, said) in zip(files.items(), found, strict=True):
        assert code == 2, name
        assert said.count("\n") == 1
        assert words in said, said
