"""The page ``docs/your-images.md``, made of the tables in the code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.camera import Camera
from pipeline.io.catalogues import FLUXES, MAGNITUDES, NAMES, READERS
from pipeline.io.filters import ALIASES, FILTER_KEYS, OPEN, UNKNOWN
from pipeline.io.keywords import ITEMS, SYNONYMS
from pipeline.io.planes import EXTENSIONS
from pipeline.io.quality import PRESETS
from pipeline.io.times import EXPOSURE_TIMES, INSTANTS, SCALES, TIMES_OF_DAY

__all__ = ["document"]

_HEAD = """\
# Your images

What `nightjar subtract` and `nightjar ingest --camera generic` read, what they guess and how they
say it, and what they refuse. The tables are those of the code; `python -m harness.cli.docs --write`
writes this page.

What is guessed is a `note` of the summary of `subtract`, a `note:` line of `ingest`, and a card
`FILLn` of the visit image.

## Files

A FITS image of two axes (others of length one are dropped) in any HDU, integers with `BSCALE`,
`BZERO` and `BLANK`, tile-compressed or not; pixels that Pan-STARRS stores as asinh are made
linear. Of a file with several images `subtract` takes the
first and says so, and of the template the one of the same name or number; `ingest` takes all, as
detectors. `FILE[2]`, `FILE[SCI]` and `--ext` choose one. A header card that cannot be read costs
that card, with a note. Extensions are recognised by EXTNAME:
"""
_CAMERAS = """\
## Cameras

`--camera NAME` says what is usual where. An instrument that is not in the table is described by a
TOML file that `nightjar camera new FILES...` writes from its images; `init`, `ingest` and
`subtract` take it after `--camera`, and a workspace keeps a copy. Its keys: `name`, `images =
"plain"`, `pixel_scale`, `mask_bits`, `extension`, cards by item below `[keywords]`, bands by name
of filter below `[filters]`. All but the first two may be left out: the usual names are looked for.
"""
_PSF = """\
## Point spread functions

`--psf` and `--template-psf` of `subtract` take a PSFEx model that varies with X and Y, stamps
`(ny, nx, h, w)` with the x and y of the grid in two more HDUs, as `--psf-grid` writes them, or one
stamp. Without one the PSF is that of the stars of the image; the note says from how many, and the
χ² per pixel of stars that were left out of it. In an image without a mask, what is sharper than a
star is a cosmic ray.
"""
_COORDINATES = """\
## Coordinates

The whole header goes to wcslib and astropy: every projection, TPV, SIP (with or without the
suffix), TNX and ZPX, old PC cards and look-up tables of distortion. FK4, FK5, galactic, ecliptic
and supergalactic frames and axes in the other order become ICRS. What is not TAN, TPV or TAN-SIP in
ICRS is fitted as TAN-SIP, and the note has the largest residual in pixels. FK5 of equinox 2000
counts as ICRS (0.023 arcsec at most). What cannot be understood is no coordinates, with the reason.
"""
_TIMES = """\
## Times

The middle of the exposure, in TAI, from the first of these cards that tells the whole; a date
without a time of day is completed or not used. Without TIMESYS the scale is UTC; before 1960,
universal time. Zones in the text, leap seconds, `31/12/98` and dates from 1860 on are read. A time
scale that is not in the list, or an exposure time that is not above 0, is refused by `ingest`.
"""
_FILTERS = """\
## Filters

`subtract` keeps any name as a band of its own and says if the two images differ. `ingest` needs one
of `ugrizy`. Names of surveys and numbers beside the letter are ignored (`ZTF_r`, `HSC-I2`).
"""
_NUMBERS = """\
## Gain, read noise, saturation

`--keyword NAME=CARD` names another card; NAME is one of {items}.
Text with its unit, such as `'2.0 e-/ADU'`, is read. A gain that contradicts the noise of the
sky is said, and where it cannot be, the measured one used.
Without one it is measured from the sky and its noise (pedestal taken as zero) and said; where the
sky has been subtracted, `ingest` takes 1 and `subtract` leaves out the photon noise of sources.
Where counts do not explain the noise (sky subtracted, frames stacked) the measured noise counts.
Where stars crowd and no sky is open, noise is what differs between neighbours in the darkest
places.
"""
_PIXELS = """\
## Pixels without data

Not-a-number, infinity and 1e29 and beyond; zeros in borders, corners and blocks; the lowest value
if it repeats and lies far below the rest (-999, -32768). Each kind is said once. A weight is
inverse variance, or scaled to the measured noise where it is not. A variance that is a standard
deviation or a weight, and a mask that marks nearly everything, are refused.

Masks with `MP_` cards are read by their names; otherwise non-zero is bad, unless the telescope is
known or `--mask-bits` says which bits count: by name, or by number and plane (`0,8=SAT`).
`noirlab` stands for the codes of its pipeline.
"""
_CATALOGUES = """\
## Catalogues

Text is read with comma, semicolon, tab or bar, `#` comments and empty cells. Units of columns count
(degrees, radians, hours; mas, mas/yr; nJy, nanomaggies) and must be of the right kind; sexagesimal
text is read. Magnitudes beyond -30 to 50 are unknown. A letter alone is a magnitude, but `y` beside
`x`, and `z` without `g`, `r` or `i`, are none. Gaia's G, BP and RP become g, r and i where the
colour allows. Identifiers that are missing or no whole numbers become row numbers.
"""


def document() -> str:
    """Return the page as Markdown.

    Returns
    -------
    str
        With the tables that `pipeline.io` uses.
    """
    parts = [
        _HEAD, _table(("holds", "names"), ((k, _code(v)) for k, v in EXTENSIONS.items())),
        _CAMERAS, _table(("name", "mask bits", "extension", "cards", "filters"), _cameras()),
        _PSF,
        _COORDINATES,
        _TIMES, _table(("card", "tells", "form"), (
            (f"`{i.key}`", {0.0: "start", 0.5: "middle", 1.0: "end"}[i.at], i.kind)
            for i in INSTANTS
        )),
        f"Times of day: {_code(TIMES_OF_DAY)}.\nExposure times: {_code(EXPOSURE_TIMES)}.\n"
        f"Scales: {_code(SCALES)}.\n",
        _FILTERS, _table(("band", "also"), ((f"`{k}`", _code(v)) for k, v in ALIASES.items())),
        f"Cards: {_code(FILTER_KEYS)}.\nNo filter known: {_code(filter(None, UNKNOWN))}.\n"
        f"Empty wheel, unless another card has a filter: {_code(OPEN)}.\n",
        _NUMBERS.format(items=_code(ITEMS)),
        _table(("item", "cards"), ((k, _code(v)) for k, v in SYNONYMS.items())),
        _PIXELS, _table(("name", "bits"), (
            (f"`{k}`", ", ".join(f"{b} {p}" for b, p in v.items())) for k, v in PRESETS.items()
        )),
        _CATALOGUES, f"Files: {_code(READERS)}.\n",
        _table(("column", "also"), ((f"`{k}`", _code(v)) for k, v in NAMES.items())),
        f"Magnitudes (AB, `r` for any band): {_code(_of_r(MAGNITUDES))}.\n"
        f"Fluxes in nanomaggies: {_code(_of_r(FLUXES))}.\n",
    ]  # fmt: skip
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _of_r(names: Iterable[tuple[str, str]]) -> Iterable[str]:
    return dict.fromkeys(name.format(b="r", B="R") for name, _ in names)


def _cameras() -> Iterator[tuple[str, ...]]:
    for name in Camera.names():
        camera = Camera.load(name)
        if camera.plain:
            cards = ", ".join(f"{item} `{card}`" for item, card in camera.keywords.items())
            bands = ", ".join(f"`{filt}` {band}" for filt, band in camera.filters.items())
            yield f"`{name}`", camera.mask_bits, camera.extension, cards, bands


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("-" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
