"""How values look in every rendering."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.verify.verdict import Verdict

__all__ = ["label", "measured", "number", "quantity", "shape"]


def label(word: str | None) -> str:
    """Words for a person of a verdict's word.

    Parameters
    ----------
    word : str, optional
        A verdict, as in ``report.json``.

    Returns
    -------
    str
        A dash for None.
    """
    return Verdict.of(word).label if word else "–"


def shape(word: str | None) -> str:
    """Return the shape that stands for a verdict in grey-scale.

    Parameters
    ----------
    word : str, optional
        A verdict, as in ``report.json``.

    Returns
    -------
    str
        One character; a space for None.
    """
    return Verdict.of(word).shape if word else " "


def number(value: object) -> str:
    """Four significant digits, thousands separated; a dash for nothing.

    Parameters
    ----------
    value : object
        A number, or anything else that is written as it is.

    Returns
    -------
    str
        For tables.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f") if abs(value) < 1_000_000_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def measured(value: float | None, error: float | None) -> str:
    """Round a value where its standard error has its second digit.

    Parameters
    ----------
    value, error : float, optional
        Of any unit, the same for both.

    Returns
    -------
    str
        For tables: ``23.640 ± 0.019``; four digits and no error where there is none.
    """
    if value is None or error is None or not np.isfinite([value, error]).all() or error <= 0.0:
        return number(value)
    decimals = 1 - int(np.floor(np.log10(error)))
    if decimals < 0:
        return f"{value:.4g} ± {error:.2g}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def quantity(check: dict[str, Any]) -> str:
    """Value of a check with its standard error and unit.

    Parameters
    ----------
    check : dict
        A check of ``report.json``.

    Returns
    -------
    str
        For tables.
    """
    text = measured(check["value"], check.get("stderr"))
    return f"{text} {check['unit']}".strip() if check["value"] is not None else text
