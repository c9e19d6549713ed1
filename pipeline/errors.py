"""Every error Nightjar raises on purpose.

::

    NightjarError
    ├── InputError            something a person gave us is wrong            (exit code 2)
    │   ├── FileFormatError   not a FITS, truncated, no such HDU
    │   ├── KeywordError      a header keyword is missing or has a bad value
    │   ├── ConfigError       a configuration value or a command line
    │   └── StorageError      the system could not read a file that is there
    │       └── WriteError    a file could not be written: full disk, permissions
    └── UnitError             one unit of work failed; the campaign goes on
        ├── PixelError        the image has no usable pixels
        ├── PsfError          the point spread function cannot be modelled
        ├── AstrometryError   no match to the reference catalogue
        ├── PhotometryError   no zero point
        ├── TemplateError     too few inputs or too little overlap
        ├── SubtractionError  kernel fit failed
        └── MeasurementError  detection or measurement failed

Every error has a `cause`, a short code kept in the ledger.  An `InputError` says in one line where
(file, HDU, keyword), what was expected and what to do.  A `UnitError` has `numbers`, the measured
values that led to it.  Raise the most specific class; ``ValueError`` is left for wrong calls of a
function, which are our own bugs.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "AstrometryError",
    "ConfigError",
    "FileFormatError",
    "InputError",
    "KeywordError",
    "MeasurementError",
    "NightjarError",
    "PhotometryError",
    "PixelError",
    "PsfError",
    "StorageError",
    "SubtractionError",
    "TemplateError",
    "UnitError",
    "WriteError",
]


class NightjarError(Exception):
    """Root of the tree; `exit_code` is what the command returns for it."""

    cause = "INTERNAL"
    exit_code = 70


class InputError(NightjarError, ValueError):
    """Bad input, described in one line.

    Parameters
    ----------
    message : str
        What is wrong.
    path : path-like, optional
        The file.
    hdu : int or str, optional
        The HDU within the file.
    key : str, optional
        The keyword, column or configuration key.
    expected : str, optional
        What would have been right.
    hint : str, optional
        What to do about it.
    """

    cause = "BAD_INPUT"
    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        path: str | Path | None = None,
        hdu: int | str | None = None,
        key: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.path, self.hdu, self.key = path, hdu, key
        self.expected, self.hint = expected, hint
        where = "".join(
            [
                f"{path}" if path is not None else "",
                f"[{hdu}]" if hdu is not None else "",
                f" {key}" if key is not None else "",
            ]
        ).strip()
        line = f"{where}: {message}" if where else message
        line += f"; expected {expected}" if expected else ""
        line += f" ({hint})" if hint else ""
        super().__init__(" ".join(line.split()))


class FileFormatError(InputError):
    """The file cannot be read as what it should be."""


class KeywordError(InputError):
    """A header keyword is missing or has an unusable value."""


class ConfigError(InputError):
    """A configuration file, a configuration value or a command line is wrong."""


class StorageError(InputError):
    """The system cannot read a file; another time it may."""

    cause = "IO_FAILED"


class WriteError(StorageError):
    """The system cannot write a file; another time it may."""

    cause = "WRITE_FAILED"


class UnitError(NightjarError, RuntimeError):
    """A unit of work failed for a reason that the data explain.

    Parameters
    ----------
    message : str
        One sentence for a person.
    **numbers : float, int or str
        The measured values and bounds behind the failure.

    Attributes
    ----------
    partial : object, optional
        What had been made when it failed, for diagnosis.  Stays in the process that made it.
    """

    cause = "UNIT_FAILED"
    exit_code = 1
    partial: object | None = None

    def __init__(self, message: str, **numbers: float | int | str) -> None:
        self.numbers = numbers
        detail = ", ".join(
            f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in numbers.items()
        )
        super().__init__(f"{message} [{detail}]" if detail else message)
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way between processes with the numbers."""
        return (_rebuild, (type(self), self.message, self.numbers))


def _rebuild(
    kind: type[UnitError], message: str, numbers: dict[str, float | int | str]
) -> UnitError:
    return kind(message, **numbers)


class PixelError(UnitError):
    """No, or too few, usable pixels."""

    cause = "NO_USABLE_PIXELS"


class PsfError(UnitError):
    """The point spread function cannot be modelled."""

    cause = "PSF_FAILED"


class AstrometryError(UnitError):
    """The sources do not match the reference catalogue."""

    cause = "ASTROMETRY_FAILED"


class PhotometryError(UnitError):
    """No zero point can be measured."""

    cause = "PHOTOMETRY_FAILED"


class TemplateError(UnitError):
    """No usable template."""

    cause = "TEMPLATE_FAILED"


class SubtractionError(UnitError):
    """The PSF-matching kernel cannot be fitted."""

    cause = "SUBTRACTION_FAILED"


class MeasurementError(UnitError):
    """Detection or measurement failed as a whole."""

    cause = "MEASUREMENT_FAILED"
