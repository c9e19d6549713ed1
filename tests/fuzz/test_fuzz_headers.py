"""Headers as nobody writes them: cards shuffled, broken, lost, of another type, of another key.

Every mutated image is read by `ingest` and some are subtracted.  Whatever comes of it, it is a
result or one clear line, and it comes soon.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from harness.cli.main import execute
from harness.ingest import ingest_files
from harness.workspace import Workspace
from pipeline.errors import NightjarError

SOAK = bool(os.environ.get("NIGHTJAR_SOAK"))
MUTATIONS = int(os.environ.get("NIGHTJAR_MUTATIONS", 2000 if SOAK else 200))
SEED = int(os.environ.get("NIGHTJAR_FUZZ_SEED", 2020))
SUBTRACTED = 1 if SOAK else 25  # every so manieth is subtracted as well
LIMIT_S = 60.0
BLOCK, CARD = 2880, 80
SIDE = 128

Cards = list[bytes]
Mutation = Callable[[np.random.Generator, Cards], Cards]

VALUES = (
    b"0", b"-1", b"1", b"2", b"999", b"2147483648", b"99999999999999999999", b"1E308", b"1E-300",
    b"-1E400", b"NAN", b"nan", b"INF", b"T", b"F", b"'x'", b"''", b"'  '", b"'open", b"", b"1.5",
    b"1,5", b"(1,2)", b"(1.0, 2.0)", b"-32", b"0x10", b"1D3", b"'1.5 e-/ADU'", b"'NaN'", b"'r'",
    b"'2020-01-02T03:04:05'", b"'2020-13-45'", b"'TAI'", b"'FK4'", b"'RA---ZPX'", b"'DEC--TNX'",
    b"'GLON-CAR'", b"'deg'", b"'pixel'", b"'SCI'", b"'MASK'", b"'\xe9'", b"=", b"/", b"T / yes",
)  # fmt: skip
KEYS = (
    b"GAIN", b"EXPTIME", b"DATE-OBS", b"FILTER", b"SATURATE", b"RDNOISE", b"CTYPE1", b"CTYPE2",
    b"CRVAL1", b"CRPIX2", b"CD1_1", b"CD2_2", b"PV1_1", b"PV2_3", b"A_ORDER", b"A_0_2", b"B_ORDER",
    b"WAT1_001", b"WAT2_001", b"CROTA2", b"CDELT1", b"PC1_1", b"LONPOLE", b"LATPOLE", b"EQUINOX",
    b"RADESYS", b"WCSAXES", b"WCSNAME", b"CPDIS1", b"DP1", b"BSCALE", b"BZERO", b"BLANK", b"NAXIS",
    b"NAXIS1", b"NAXIS2", b"NAXIS3", b"BITPIX", b"EXTNAME", b"EXTVER", b"INHERIT", b"TIMESYS",
    b"MJD-OBS", b"MJDREF", b"TIME-OBS", b"TELESCOP", b"INSTRUME", b"BUNIT", b"AIRMASS", b"OBJECT",
    b"PRODUCT", b"PROCTYPE", b"MP_BAD", b"PCOUNT", b"GCOUNT", b"ZIMAGE", b"ZCMPTYPE", b"ZTILE1",
    b"CUNIT1", b"MJDMID", b"EGAIN", b"VISIT", b"CCDNUM", b"GROUPS", b"SIMPLE", b"XTENSION",
)  # fmt: skip


def card(key: bytes, value: bytes) -> bytes:
    return (key.ljust(8) + b"= " + value.rjust(20)).ljust(CARD)[:CARD]


def shuffled(rng: np.random.Generator, cards: Cards) -> Cards:
    fixed = int(rng.choice([0, 3, 6]))
    return cards[:fixed] + [cards[fixed + i] for i in rng.permutation(len(cards) - fixed)]


def lost(rng: np.random.Generator, cards: Cards) -> Cards:
    gone = set(rng.integers(0, len(cards), rng.integers(1, 4)).tolist())
    return [c for i, c in enumerate(cards) if i not in gone]


def revalued(rng: np.random.Generator, cards: Cards) -> Cards:
    place = int(rng.integers(len(cards)))
    return _with(cards, place, card(cards[place][:8], VALUES[rng.integers(len(VALUES))]))


def retyped(rng: np.random.Generator, cards: Cards) -> Cards:
    """Numbers become text and text becomes bare."""
    place = int(rng.integers(len(cards)))
    value = cards[place][10:].split(b"/")[0].strip()
    other = value.strip(b"' ") if value.startswith(b"'") else b"'" + value + b"'"
    return _with(cards, place, card(cards[place][:8], other))


def added(rng: np.random.Generator, cards: Cards) -> Cards:
    new = card(KEYS[rng.integers(len(KEYS))], VALUES[rng.integers(len(VALUES))])
    place = int(rng.integers(len(cards) + 1))
    return [*cards[:place], new, *cards[place:]]


def renamed(rng: np.random.Generator, cards: Cards) -> Cards:
    place = int(rng.integers(len(cards)))
    return _with(cards, place, KEYS[rng.integers(len(KEYS))].ljust(8) + cards[place][8:])


def exchanged(rng: np.random.Generator, cards: Cards) -> Cards:
    a, b = (int(i) for i in rng.integers(0, len(cards), 2))
    cards = _with(cards, a, cards[a][:8] + cards[b][8:])
    return _with(cards, b, cards[b][:8] + cards[a][8:])


def broken(rng: np.random.Generator, cards: Cards) -> Cards:
    place = int(rng.integers(len(cards)))
    content = bytearray(cards[place])
    for at in rng.integers(0, CARD, rng.integers(1, 12)):
        content[at] = int(rng.integers(256))
    return _with(cards, place, bytes(content))


def _with(cards: Cards, place: int, new: bytes) -> Cards:
    return [*cards[:place], new, *cards[place + 1 :]]


MUTATE: tuple[Mutation, ...] = (
    shuffled, lost, revalued, revalued, revalued, retyped, retyped, added, added, renamed,
    exchanged, broken, broken,
)  # fmt: skip


def sky_image(seed: int) -> np.ndarray:
    """Thirty stars on a sky."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.full((SIDE, SIDE), 400.0)
    for x0, y0, flux in zip(*rng.uniform(5, SIDE - 5, (2, 30)), rng.uniform(3e3, 4e4, 30),
                            strict=True):  # fmt: skip
        r2 = (x - x0) ** 2 + (y - y0) ** 2
        image += flux / (2 * np.pi * 1.6**2) * np.exp(-0.5 * r2 / 1.6**2)
    return (image + np.random.default_rng(seed).normal(0, np.sqrt(image / 2.0))).astype("f4")


def header(**more: object) -> fits.Header:
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 64.5,
        "CRPIX2": 64.5, "CD1_1": -8e-5, "CD1_2": 1e-6, "CD2_1": 1e-6, "CD2_2": 8e-5,
        "RADESYS": "ICRS", "EQUINOX": 2000.0, "GAIN": 2.0, "RDNOISE": 5.0, "SATURATE": 60000.0,
        "EXPTIME": 60.0, "FILTER": "r", "DATE-OBS": "2020-01-02T03:04:05.0", "OBJECT": "field",
        "TELESCOP": "T1", "AIRMASS": 1.2,
    } | more  # fmt: skip
    found = fits.Header()
    for key, value in cards.items():
        found[key] = value
    return found


def originals() -> Iterator[tuple[str, bytes]]:
    """Good files of several kinds."""
    image = sky_image(1)
    sip = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "A_0_2": 1e-6,
           "B_ORDER": 2, "B_2_0": -1e-6}  # fmt: skip
    flat = '"3. 2. 2. 2. 0. 1. 0. 1. 0. 0. 0. "'
    wat = {
        "CTYPE1": "RA---TNX", "CTYPE2": "DEC--TNX", "WAT0_001": "system=image",
        "WAT1_001": f"wtype=tnx axtype=ra lngcor = {flat}",
        "WAT2_001": f"wtype=tnx axtype=dec latcor = {flat}",
    }  # fmt: skip
    pv = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV2_1": 1.0, "PV1_4": 1e-5}
    yield "plain", _written([fits.PrimaryHDU(image, header())])
    yield "integers", _written([fits.PrimaryHDU(image.astype("i2"), header(BLANK=-32768))])
    yield "unsigned", _written([fits.PrimaryHDU(image.astype("u2"), header())])
    yield "cube of one", _written([fits.PrimaryHDU(image[None], header())])
    for name, cards in (("sip", sip), ("tnx", wat), ("tpv", pv)):
        yield name, _written([fits.PrimaryHDU(image, header(**cards))])
    planes = [
        fits.PrimaryHDU(), fits.ImageHDU(image, header(), name="SCI"),
        fits.ImageHDU(np.sqrt(image / 2), name="ERR"),
        fits.ImageHDU(np.zeros(image.shape, "i4"), fits.Header({"MP_BAD": 0}), name="MASK"),
    ]  # fmt: skip
    yield "extensions", _written(planes)
    yield "tiles", _written([fits.PrimaryHDU(), fits.CompImageHDU(image, header())])


def _written(hdus: list[fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU]) -> bytes:
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(stream)
    return stream.getvalue()


def mutated(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """The file with one to three changes in one header, and their names."""
    headers = [0]
    with fits.open(io.BytesIO(data), disable_image_compression=True) as hdus:
        headers = [hdu.fileinfo()["hdrLoc"] for hdu in hdus]
    start = int(rng.choice(headers))
    end = next(i for i in range(start, len(data), CARD) if data[i : i + CARD].rstrip() == b"END")
    cards = [data[i : i + CARD] for i in range(start, end, CARD)]
    rest = data[start + -(-(end + CARD - start) // BLOCK) * BLOCK :]
    names = []
    for _ in range(int(rng.integers(1, 4))):
        change = MUTATE[rng.integers(len(MUTATE))]
        cards, names = change(rng, cards), [*names, change.__name__]
    text = b"".join(cards) + b"END".ljust(CARD)
    return data[:start] + text.ljust(-(-len(text) // BLOCK) * BLOCK) + rest, "+".join(names)


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """Fail what takes too long."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {LIMIT_S:g} s")

    former, start = signal.signal(signal.SIGALRM, late), time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
        assert time.monotonic() - start < LIMIT_S  # where the alarm itself was caught
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("headers") / "w"
    assert execute(["init", str(root), "--camera", "generic"]) == 0
    return Workspace.open(root)


def _ingested(space: Workspace, path: Path) -> str:
    """What ingest says of a file: nothing, or its problem."""
    try:
        with soon():
            problems = ingest_files(space, [path], dry_run=True).problems
    except NightjarError as err:
        problems = [str(err)]
    return "\n".join(problems)


@pytest.mark.filterwarnings("default")
def test_mutated_headers_give_a_result_or_one_line(
    space: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = list(originals())
    template = tmp_path / "template.fits"
    fits.writeto(template, sky_image(2), header(GAIN=2.0))
    path, out = tmp_path / "mutated.fits", tmp_path / "out"
    path.write_bytes(files[0][1])
    subtraction = ["subtract", str(path), str(template), "-o", str(out)]
    assert execute(subtraction) in (0, 1)  # loops that are not compiled yet take their time here
    read = refused = 0
    faults = []  # all of them: a soak takes long
    for seed in range(MUTATIONS):
        rng = np.random.default_rng([SEED, seed])
        kind, data = files[seed % len(files)]
        content, how = mutated(rng, data)
        path.write_bytes(content)
        what = f"seed {seed}: {kind}, {how}: "
        try:
            said = _ingested(space, path)
            read, refused = read + (not said), refused + bool(said)
            if "\n" in said:
                faults.append(what + said)
            if seed % SUBTRACTED == 0:
                with soon():
                    code = execute(subtraction)
                errors = capsys.readouterr().err
                if code not in (0, 1, 2):
                    faults.append(what + errors)
        except Exception as err:
            faults.append(what + repr(err))
    assert not faults, "\n".join(faults)
    assert read > 0.3 * MUTATIONS
    assert refused > 0.1 * MUTATIONS
