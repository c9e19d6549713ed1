"""Opening with clear errors, writing without half-written files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from pipeline.errors import FileFormatError
from pipeline.io import sizes

__all__ = ["atomic_path", "open_fits"]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary name beside a file and move it there when all went well.

    Parameters
    ----------
    path : path-like
        The file to be; its folder is made if need be.

    Yields
    ------
    Path
        Where to write; nothing remains of it after an exception.

    Raises
    ------
    FileFormatError
        If the folder cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as err:
        raise FileFormatError(
            f"cannot be written: {err.strerror or err}", path=path, hint="permissions, free space?"
        ) from err
    finally:
        if partial.exists():
            partial.unlink()


@contextmanager
def open_fits(
    path: str | Path, *, expected: str = "a FITS file", raw_tables: bool = False
) -> Iterator[fits.HDUList]:
    """Open a FITS file; whatever goes wrong inside the block becomes one clear line.

    Parameters
    ----------
    path : path-like
        The file.
    expected : str
        What the file should be, for the message.
    raw_tables : bool
        Whether compressed images appear as the binary tables they are stored in.

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
            with (
                path.open("rb") as packed,
                sizes.unpacked(packed, path) as stream,
                _opened(stream, path, raw_tables) as hdus,
            ):
                yield hdus
        except AstropyUserWarning as err:
            raise _damaged(path, "truncated", expected) from err
        except (OSError, TypeError, IndexError, EOFError, MemoryError) as err:
            raise _damaged(path, f"damaged or not FITS: {err}", expected) from err


@contextmanager
def _opened(stream: IO[bytes], path: Path, raw_tables: bool) -> Iterator[fits.HDUList]:
    """Open what has been unpacked, and look at the sizes before anything is read."""
    length = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    # A memory map would keep a replaced product alive and gains nothing on RICE; a stream of our
    # own is closed even if astropy gives up halfway through opening.
    with _checked(stream, path, length, True) as hdus:
        packed = any(hdu.header.get("ZIMAGE") for hdu in hdus)
        if raw_tables or not packed:
            yield hdus
            return
        sizes.check_tiles(hdus, path)
        stream.seek(0)
        with _checked(stream, path, length, False) as images:
            yield images


@contextmanager
def _checked(stream: IO[bytes], path: Path, length: int, raw: bool) -> Iterator[fits.HDUList]:
    try:
        hdus = fits.open(stream, memmap=False, disable_image_compression=raw)
        sizes.check_sizes(hdus, path, length)
    except FileFormatError:
        raise
    except (KeyError, ValueError, OverflowError, AttributeError) as err:
        raise OSError(f"a header that makes no sense: {err}") from err
    with hdus:
        yield hdus


def _damaged(path: Path, what: str, expected: str) -> FileFormatError:
    return FileFormatError(what, path=path, expected=expected, hint="fetch or write it again")
