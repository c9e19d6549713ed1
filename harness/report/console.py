"""The summary on the screen."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.report.text import label, quantity, shape
from harness.system.text import one_line

__all__ = ["print_summary"]

_STYLES = {
    "pass": "green",
    "deviation": "green",
    "partial": "yellow",
    "not_run": "yellow",
    "not_applicable": "dim",
    "fail": "bold red",
    "error": "bold red",
}


def _said(text: str) -> str:
    """Words of others: neither markup nor control characters."""
    return escape(one_line(text))


def print_summary(report: dict[str, Any], console: Console, *, details: int = 12) -> None:
    """Print the summary table and what keeps the campaign from a plain pass.

    Parameters
    ----------
    report : dict
        The report.
    console : rich.console.Console
        Where to.
    details : int
        How many checks that are less than a pass are listed.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("case", "verdict", "title", "comment"):
        table.add_column(name, no_wrap=name != "comment", overflow="fold")
    for case in report["cases"]:
        word = case["verdict"]
        style = _STYLES[word]
        table.add_row(
            case["id"],
            f"[{style}]{shape(word)} {label(word)}[/]",
            _said(case["title"]),
            _said(case["comment"]),
        )
    console.print(table)
    below = [
        (f"{c['id']}/{i['id']}/{k['id']}", k)
        for c in report["cases"]
        for i in c["items"]
        for k in i["checks"]
        if k["verdict"] in ("partial", "fail", "error")
    ]
    for path, check in below[:details]:
        word = check["verdict"]
        console.print(
            f"[{_STYLES[word]}]{shape(word)}[/] {_said(path)}: {_said(quantity(check))}, "
            f"bound {_said(check['bound'])}"
            + (f" ({_said(check['reason'])})" if check["reason"] else ""),
            highlight=False,
        )
    if len(below) > details:
        console.print(f"… and {len(below) - details} more, see the report")
