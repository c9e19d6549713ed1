"""Opening FITS files with clear errors."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import IO

from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from pipeline.errors import FileFormatError, StorageError
from pipeline.io import sizes

__all__ = ["open_fits"]

_IMPOSSIBLE = (None, errno.EINVAL, errno.EOVERFLOW)
"""Numbers of errors of files whose headers send readers to places that there are none."""

_START = 64  # bytes that tell what a file is
_NOT_SAID = (
    "File may have been truncated",  # also where only padding lacks; `check_sizes` knows better
    "non-ASCII characters are present",
    "The following header keyword is invalid",  # cards that cannot be read become notes
    "Header block contains null bytes",
    "Missing padding to end of the FITS block",
)


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
    StorageError
        If the system cannot read it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError("no such file", path=path, expected=expected)
    _refuse_substitutes(path, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        for message in _NOT_SAID:
            warnings.filterwarnings("ignore", message, AstropyUserWarning)
        try:
            with (
                path.open("rb") as packed,
                sizes.unpacked(packed, path) as stream,
                _opened(stream, path, scaled) as hdus,
            ):
                yield hdus
        except (
            OSError, TypeError, IndexError, EOFError, MemoryError, fits.VerifyError, UnicodeError
        ) as err:  # fmt: skip
            if isinstance(err, OSError) and err.errno not in _IMPOSSIBLE:
                raise _unreadable(path, err) from err  # of the system, not of the format
            raise _damaged(path, f"damaged or not FITS: {err}", expected) from err
        except AssertionError as err:
            if not _of_astropy(err):
                raise
            raise _damaged(path, f"damaged or not FITS: {err}", expected) from err


def _refuse_substitutes(path: Path, expected: str) -> None:
    """Name what is often there in the place of a file that was not fetched."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_START)
    except OSError as err:
        raise _unreadable(path, err) from err
    if start.startswith(b"version https://git-lfs"):
        raise FileFormatError(
            "is a Git LFS pointer, not the file itself", path=path, expected=expected,
            hint="run `git lfs pull` in its repository",
        )  # fmt: skip
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise FileFormatError(
            "is a web page, not the file itself", path=path, expected=expected,
            hint="fetch it again; archives answer like this when access is refused",
        )  # fmt: skip


@contextmanager
def _opened(stream: IO[bytes], path: Path, scaled: bool) -> Iterator[fits.HDUList]:
    """Open what has been unpacked, and look at the sizes before anything is read."""
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    sizes.check_counts(stream)
    try:
        # A memory map would keep a replaced product alive and gains nothing on RICE; a stream of
        # our own is closed even if astropy gives up halfway through opening.
        hdus = fits.open(stream, memmap=False, do_not_scale_image_data=not scaled)
        sizes.check_sizes(hdus, path, length)
    except FileFormatError:
        raise
    except (KeyError, ValueError, OverflowError, AttributeError) as err:
        raise OSError(f"a header that makes no sense: {err}") from err
    with hdus:
        yield hdus


def _of_astropy(err: BaseException) -> bool:
    """Whether astropy raised an error, not one of ours."""
    *_, (frame, _) = walk_tb(err.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("astropy.")


def _unreadable(path: Path, err: OSError) -> StorageError:
    return StorageError(f"cannot be read: {err.strerror}", path=path, hint="try again later")


def _damaged(path: Path, what: str, expected: str) -> FileFormatError:
    return FileFormatError(what, path=path, expected=expected, hint="fetch or write it again")
