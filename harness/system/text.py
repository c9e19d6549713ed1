"""Text from elsewhere, made fit for a terminal, a line and a spreadsheet."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["control_character", "in_cell", "one_line", "printable"]

_FORMULA = re.compile(r"[=+\-@\t\r]")
_KEPT = frozenset("\n\t")


def _controls(character: str) -> bool:
    """Whether a character steers a terminal or the order of its text."""
    return character not in _KEPT and unicodedata.category(character) in ("Cc", "Cf", "Cs")


def control_character(text: str) -> str:
    """Return the first character that would steer a terminal, empty where there is none.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        One character: a control other than newline and tab, a format or a surrogate character.
    """
    return next((c for c in text if _controls(c)), "")


def printable(text: str) -> str:
    r"""Write characters that would steer a terminal as ``\\x1b``.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        Safe to print.
    """
    return "".join(c.encode("unicode_escape").decode() if _controls(c) else c for c in text)


def one_line(text: object) -> str:
    """Bring text onto one printable line.

    Parameters
    ----------
    text : object
        Any text, or what has one.

    Returns
    -------
    str
        With single blanks.
    """
    return printable(" ".join(str(text).split()))


def in_cell(text: str) -> str:
    """Keep a spreadsheet from taking a text for a formula: an apostrophe is put before it.

    Parameters
    ----------
    text : str
        Content of a cell.

    Returns
    -------
    str
        The same, unless it begins like a formula.
    """
    return f"'{text}" if _FORMULA.match(text) else text
