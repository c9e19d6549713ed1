"""How values look in every rendering."""

from __future__ import annotations

from typing import Any

from harness.verify.verdict import Verdict

__all__ = ["label", "number", "quantity", "shape"]


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
    text = number(check["value"])
    if check.get("stderr") is not None:
        text += f" ± {check['stderr']:.2g}"
    return f"{text} {check['unit']}".strip() if check["value"] is not None else text
