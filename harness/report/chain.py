"""The hash chain of a report: runs → catalogue → products → criteria → verdicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness.campaign.chain import link
from harness.system.hashes import file_hash

if TYPE_CHECKING:
    from harness.verify.context import Context

__all__ = ["chain", "chained", "digest_of"]

_PRODUCTS = ("visit_image", "template", "difference_image")


def digest_of(content: object) -> str:
    """SHA-256 of plain data in its canonical text.

    Parameters
    ----------
    content : object
        JSON values.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def chained(parts: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Join hashes so that each link depends on all before it.

    Parameters
    ----------
    parts : iterable of tuple of str
        Names and hashes in order.

    Returns
    -------
    list of dict
        ``{"of", "sha256", "link"}``; the last link stands for everything.
    """
    links: list[dict[str, str]] = []
    for name, digest in parts:
        before = links[-1]["link"] if links else ""
        joined = hashlib.sha256(f"{before}{name}{digest}".encode()).hexdigest()
        links.append({"of": name, "sha256": digest, "link": joined})
    return links


def chain(context: Context, concluded: Mapping[str, Any]) -> list[dict[str, str]]:
    """Chain a campaign and the conclusions that were drawn from it.

    Parameters
    ----------
    context : Context
        The campaign.
    concluded : mapping
        Made by `harness.report.model.conclusions`.

    Returns
    -------
    list of dict
        See `chained`.
    """
    return chained(
        [
            ("runs", link(context.runs[-1]) if context.runs else ""),
            ("catalogue", file_hash(context.space.catalog)),
            ("products", digest_of(_products(context))),
            ("criteria", str(concluded["spec_hash"])),
            ("verdicts", digest_of(concluded)),
        ]
    )


def _products(context: Context) -> list[list[Any]]:
    """Names and recorded hashes of all products."""
    return [
        [file, digest]
        for table in _PRODUCTS
        if {"file", "sha256"} <= set(context.columns.get(table, ()))
        for file, digest in context.fetch(f"select file, sha256 from {table} order by all")
    ]
