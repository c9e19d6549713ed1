"""Opening FITS files with clear errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from pipeline.errors import FileFormatError

__all__ = ["open_fits"]


@contextmanager
def open_fits(
    path: str | Path, *, expected: str = "a FITS file", scaled: bool = True
) -> Iterator[fits.HDUList]:
    """Open a FITS file; whatever goes wrong inside the block becomes one clear line.

    Parameters
    ----------
    path : path-like
        The file.
    expected : str
        What the file should be, for the message.
    scaled : bool
        Whether BSCALE and BZERO are applied to pixels.

    Yields
    ------
    astropy.io.fits.HDUList
        Opened for reading.

    Raises
    ------
    FileFormatError
        If the file is missing, not FITS, truncated or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError("no such file", path=path, expected=expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        warnings.filterwarnings("error", "File may have been truncated", AstropyUserWarning)
        try:
            # A memory map would keep a replaced product alive and gains nothing on RICE; a stream
            # of our own is closed even if astropy gives up halfway through opening.
            with (
                path.open("rb") as stream,
                fits.open(stream, memmap=False, do_not_scale_image_data=not scaled) as hdus,
            ):
                _check_length(hdus, path)
                yield hdus
        except AstropyUserWarning as err:
            raise _damaged(path, "truncated", expected) from err
        except (OSError, TypeError, IndexError, EOFError, fits.VerifyError, UnicodeError) as err:
            raise _damaged(path, f"damaged or not FITS: {err}", expected) from err


def _check_length(hdus: fits.HDUList, path: Path) -> None:
    place = hdus[-1].fileinfo()
    if place["datLoc"] + place["datSpan"] > path.stat().st_size:
        raise OSError("the last HDU is truncated")


def _damaged(path: Path, what: str, expected: str) -> FileFormatError:
    return FileFormatError(what, path=path, expected=expected, hint="fetch or write it again")
